"""Patches of what single components add to the stream: an attention, an MLP, or one head of an attention.

After Prakash et al. 2024 (arXiv 2402.14811), who patch heads at the prompt; these also act while the target decodes.
"""

from collections.abc import Hashable, MutableMapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from demur.core.errors import InputError
from demur.engine.branch_recording import OutputChange, changed_outputs
from demur.engine.checkpoints import Checkpoint
from demur.engine.lockstep.matched_pair import MatchedPair
from demur.engine.lockstep.stream_patch import scrambled_difference
from demur.engine.readout.attention_heads import head_projections
from demur.models.layouts import branch

ComponentPart = Literal["attention", "mlp", "head"]


@dataclass(frozen=True)
class Component:
    """One component of a checkpoint.

    Attributes:
        layer: its block.
        part: the whole `attention`, the `mlp`, or one `head` of the attention.
        head: which head.
    """

    layer: int
    part: ComponentPart
    head: int | None = None


@dataclass(frozen=True, eq=False)
class ComponentPatch:
    """Puts what some components of the source add to the stream in the place of what the same components of the target add.

    Attributes:
        components: the components.
        scrambled: for a null patch: the seed of a permutation of the coordinates with random signs, by which the difference of
            both outputs is permuted before it is added.
    """

    components: tuple[Component, ...]
    scrambled: int | None = None

    @property
    def reads(self) -> Hashable:
        """What it needs of the source; patches that need the same share it."""
        return frozenset(_module_keys(self.components))

    def acts_on(self, part: Literal["prompt", "generated"]) -> bool:  # noqa: ARG002
        """It acts at all token positions."""
        return True

    def begins(self, target: Checkpoint) -> int:
        """How many blocks of the target run as without it."""
        return min((one.layer for one in self.components), default=target.n_layers)

    def check(self, target: Checkpoint) -> None:
        """Check that the components exist.

        Raises:
            InputError: for a component that the checkpoint does not have.
        """
        heads = head_projections(target)[0].n_heads if any(one.part == "head" for one in self.components) else 0
        for one in self.components:
            if not 0 <= one.layer < target.n_layers:
                raise InputError(f"a patch names layer {one.layer}, but the checkpoints have layers 0 to {target.n_layers - 1}")
            if one.part == "head" and (one.head is None or not 0 <= one.head < heads):
                raise InputError(f"a patch of a head needs one of the heads 0 to {heads - 1}")

    def recording(self, source: Checkpoint, kept: MutableMapping[Hashable, Tensor]) -> AbstractContextManager[object]:
        """Inside, forward passes of the source keep what the patch needs.

        Args:
            source: the checkpoint.
            kept: where it is kept.
        """

        def keeper(key: Hashable, *, inputs: bool) -> OutputChange:
            def keep(given: Tensor, output: Tensor) -> None:
                # Cloned, because some blocks add to the outputs of their branches in place.
                kept[key] = (given if inputs else output).detach().clone()

            return keep

        modules = _modules(source, self.components)
        return changed_outputs({module: keeper(key, inputs=key[1] == "head") for key, module in modules.items()})

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
        changes: dict[nn.Module, OutputChange] = {}
        for key, module in _modules(pair.target, self.components).items():
            heads = [one.head for one in self.components if (one.layer, one.part) == key and one.head is not None]
            changes[module] = self._heads(pair, key[0], heads, kept[key]) if heads else self._replaced(kept[key])
        return changed_outputs(changes)

    def _replaced(self, source: Tensor) -> OutputChange:
        def replace(_: Tensor, output: Tensor) -> Tensor:
            taken = source.to(output.device)
            if self.scrambled is None:
                # Copied, not added as a difference, so that a patch of a checkpoint into itself is exact.
                return taken.to(output.dtype)
            working = torch.promote_types(output.dtype, torch.float32)
            difference = scrambled_difference(taken.to(working) - output.to(working), self.scrambled)
            return (output.to(working) + difference).to(output.dtype)

        return replace

    def _heads(self, pair: MatchedPair, layer: int, heads: Sequence[int], source: Tensor) -> OutputChange:
        theirs, mine = (head_projections(one)[layer] for one in (pair.source, pair.target))

        def replace(given: Tensor, output: Tensor) -> Tensor:
            working = torch.promote_types(output.dtype, torch.float32)
            # The differences are exactly 0 for a checkpoint and itself.
            changes = [theirs.written(source, head).to(output.device, working) - mine.written(given, head) for head in heads]
            difference = torch.stack(changes).sum(0)
            if self.scrambled is not None:
                difference = scrambled_difference(difference, self.scrambled)
            return (output.to(working) + difference).to(output.dtype)

        return replace


def _module_keys(components: Sequence[Component]) -> dict[tuple[int, ComponentPart], None]:
    """Layer and part of the modules of some components, each once."""
    return {(one.layer, one.part): None for one in components}


def _modules(checkpoint: Checkpoint, components: Sequence[Component]) -> dict[tuple[int, ComponentPart], nn.Module]:
    """The modules whose outputs hold what the components add."""
    layout, blocks = checkpoint.layout, checkpoint.layout.find_blocks(checkpoint.model)
    keys = _module_keys(components)
    projections = head_projections(checkpoint) if any(part == "head" for _, part in keys) else []
    found: dict[tuple[int, ComponentPart], nn.Module] = {}
    for layer, part in keys:
        path = layout.attention if part == "attention" else layout.mlp
        found[layer, part] = projections[layer].module if part == "head" else branch(blocks[layer], path)
    return found
