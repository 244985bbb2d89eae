"""Patches: what is taken from the source's residual stream and put into the target's, and where.

After Prakash et al. 2024 (arXiv 2402.14811, cross-model activation patching), in a form that also acts while the target decodes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from demur.core.errors import InputError
from demur.engine.hooks import Change
from demur.models.layouts import Point, point

Stretch = Literal["all", "prompt", "generated"]
"""The token positions at which a patch acts."""


@dataclass(frozen=True, eq=False)
class StreamPatch:
    """Puts the source's stream at one block's output into the target's stream.

    Attributes:
        layer: the block after whose output the stream is replaced, from 0.
        positions: the token positions at which it is replaced. The first generated token is decided at the prompt's last token.
        along: orthonormal rows; only the component in their span is replaced. None for the whole stream.
        scrambled: for a null patch: the seed of a permutation of the coordinates with random signs. The difference of both
            streams is permuted before it is added, so it has the same norm at every token position, but another direction.
    """

    layer: int
    positions: Stretch = "all"
    along: Float[Tensor, "rank d_model"] | None = None
    scrambled: int | None = None

    def acts_on(self, part: Literal["prompt", "generated"]) -> bool:
        """Whether it acts on the prompt, or on generated tokens."""
        return self.positions in ("all", part)

    @property
    def where(self) -> Point:
        """The point of the stream at which it acts."""
        return point(self.layer, "resid_post")

    def change(self, source: Float[Tensor, "row seq d_model"]) -> Change:
        """The change of the target's stream in one forward pass.

        Args:
            source: the source's stream at the same point and token positions.
        """

        def replace(stream: Tensor, onto: Tensor) -> Tensor:
            taken = source.to(stream.device)
            if self.along is None and self.scrambled is None:
                # The whole stream is copied, not added as a difference, so that a patch of a checkpoint into itself is exact.
                return taken.to(onto.dtype)
            working = torch.promote_types(onto.dtype, torch.float32)
            difference = taken.to(working) - stream.to(working)
            if self.along is not None:
                rows = self.along.to(stream.device, working)
                difference = (difference @ rows.T) @ rows
            if self.scrambled is not None:
                order, signs = _scramble(difference.shape[-1], self.scrambled)
                difference = difference[..., order.to(stream.device)] * signs.to(stream.device, working)
            return (onto.to(working) + difference).to(onto.dtype)

        return replace


def _scramble(width: int, seed: int) -> tuple[Tensor, Tensor]:
    """A permutation of the coordinates, and a sign for each."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(width, generator=generator)
    return order, torch.randint(0, 2, (width,), generator=generator) * 2.0 - 1


def check_patches(patches: Iterable[StreamPatch], n_layers: int, d_model: int) -> None:
    """Raises `InputError` for a patch of a layer that does not exist, or along vectors of another width."""
    for patch in patches:
        if not 0 <= patch.layer < n_layers:
            raise InputError(f"a patch names layer {patch.layer}, but the checkpoints have layers 0 to {n_layers - 1}")
        if patch.along is not None and patch.along.shape[-1] != d_model:
            raise InputError(f"a patch is along vectors of width {patch.along.shape[-1]}, but the stream has width {d_model}")


def keep_streams(points: Iterable[Point], into: dict[Point, Tensor]) -> Mapping[Point, Change]:
    """Changes that change nothing and fill `into` with the stream at these points, at all token positions."""

    def keeper(where: Point) -> Change:
        def keep(stream: Tensor, onto: Tensor) -> None:  # noqa: ARG001
            # Cloned, because a later edit in place would change it.
            into[where] = stream.detach().clone()

        return keep

    return {where: keeper(where) for where in points}
