"""Patches: what is taken from the source's residual stream and put into the target's, and where.

After Prakash et al. 2024 (arXiv 2402.14811, cross-model activation patching), in a form that also acts while the target decodes.
"""

from collections.abc import Hashable, MutableMapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from demur.core.errors import InputError
from demur.engine.checkpoints import Checkpoint
from demur.engine.hooks import Change, hooked
from demur.engine.lockstep.matched_pair import MatchedPair
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

    @property
    def reads(self) -> Hashable:
        """What it needs of the source; patches that need the same share it."""
        return self.where

    def begins(self, target: Checkpoint) -> int:  # noqa: ARG002
        """How many blocks of the target run as without it."""
        return self.where.layer

    def check(self, target: Checkpoint) -> None:
        """Check that it fits a checkpoint.

        Raises:
            InputError: for a layer that does not exist, or vectors of another width.
        """
        if not 0 <= self.layer < target.n_layers:
            raise InputError(f"a patch names layer {self.layer}, but the checkpoints have layers 0 to {target.n_layers - 1}")
        if self.along is not None and self.along.shape[-1] != target.d_model:
            raise InputError(
                f"a patch is along vectors of width {self.along.shape[-1]}, but the stream has width {target.d_model}"
            )

    def recording(self, source: Checkpoint, kept: MutableMapping[Hashable, Tensor]) -> AbstractContextManager[object]:
        """Inside, forward passes of the source keep the stream that the patch needs, at all token positions.

        Args:
            source: the checkpoint.
            kept: where it is kept.
        """

        def keep(stream: Tensor, onto: Tensor) -> None:  # noqa: ARG001
            # Cloned, because a later edit in place would change it.
            kept[self.reads] = stream.detach().clone()

        return hooked(source.model, source.layout, {self.where: keep})

    def acting_on(
        self,
        pair: MatchedPair,
        kept: MutableMapping[Hashable, Tensor],
        prompt_width: int,  # noqa: ARG002
    ) -> AbstractContextManager[object]:
        """Inside, forward passes of the target are patched.

        Args:
            pair: both checkpoints.
            kept: what the source kept in the same pass.
            prompt_width: token positions of the prompt, padding included.
        """
        return hooked(pair.target.model, pair.target.layout, {self.where: self.change(kept[self.reads])})

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
                difference = scrambled_difference(difference, self.scrambled)
            return (onto.to(working) + difference).to(onto.dtype)

        return replace


def scrambled_difference(difference: Float[Tensor, "... d_model"], seed: int) -> Float[Tensor, "... d_model"]:
    """A difference whose coordinates are permuted, each with a random sign. It has the same norm everywhere.

    Args:
        difference: the difference.
        seed: the seed of the permutation and the signs.
    """
    generator, width = torch.Generator().manual_seed(seed), difference.shape[-1]
    order = torch.randperm(width, generator=generator)
    signs = torch.randint(0, 2, (width,), generator=generator) * 2.0 - 1
    return difference[..., order.to(difference.device)] * signs.to(difference.device, difference.dtype)
