"""Runs the first blocks of a model once, and several runs of the other blocks after them.

Runs that differ only from some block on are equal before it. So the blocks before it run once, and the others go on from their
output. A block that is skipped gives this output without computing anything. It changes no bit, because the same numbers in the
same batch come out of the same blocks.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from demur.engine.checkpoints import Checkpoint
from demur.engine.hooks import Stop, first, like_output
from demur.models.layouts import Layout


class ElsewhereLayer(DynamicLayer):  # type: ignore[misc]
    """Stands for a layer whose keys and values another cache holds. It only says how many tokens there are before a pass."""

    def __init__(self, tokens: int) -> None:
        """Stand for a layer with this many tokens, padding included."""
        super().__init__()
        self.tokens = tokens

    def update(self, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Refused: a block that is skipped computes no keys and values."""
        raise AssertionError("a block that should be skipped has run")

    def get_seq_length(self) -> int:
        """The number of tokens before a pass."""
        return self.tokens


@dataclass(frozen=True, eq=False)
class Begun:
    """What the first blocks of a model gave in one forward pass.

    Attributes:
        outputs: the output of the blocks, by how many of them had run.
    """

    outputs: Mapping[int, Any]  # Any: some families give a tensor, others a tuple

    @contextmanager
    def resumed(self, model: nn.Module, layout: Layout, blocks: int, cache: DynamicCache, tokens: int) -> Iterator[None]:
        """Inside, a forward pass goes on after the first blocks.

        Args:
            model: the model.
            layout: the layout of its family.
            blocks: how many blocks are skipped, 0 for none.
            cache: the cache of the pass, whose first layers are not used.
            tokens: the number of tokens before the pass, padding included.
        """
        if not blocks:
            yield
            return
        cache.layers[:blocks] = [ElsewhereLayer(tokens) for _ in range(blocks)]
        # Every skipped block gives this output. Those before the last one only have to give something of the same form.
        output = self.outputs[blocks]
        with ExitStack() as stack:
            for block in layout.find_blocks(model)[:blocks]:
                block.forward = _giving(output)
                stack.callback(delattr, block, "forward")
            yield


def _giving(output: Any) -> Callable[..., Any]:
    return lambda *_, **__: output


@contextmanager
def begun(model: nn.Module, layout: Layout, depths: Collection[int]) -> Iterator[Begun]:
    """Inside, a forward pass ends early, and what it began is kept.

    Args:
        model: the model.
        layout: the layout of its family.
        depths: after how many blocks the output is kept, each at least 1. The pass ends after the most of them.

    Yields:
        What the blocks give. It is filled by the forward pass.
    """
    outputs: dict[int, Any] = {}

    def keep(depth: int) -> Callable[..., None]:
        def hook(*called: Any) -> None:
            output = called[-1]
            # Cloned, because a later edit in place would change it.
            outputs[depth] = like_output(output, first(output).clone())
            if depth == max(depths):
                raise Stop

        return hook

    blocks = layout.find_blocks(model)
    with ExitStack() as stack:
        for depth in depths:
            stack.callback(blocks[depth - 1].register_forward_hook(keep(depth)).remove)
        with suppress(Stop):
            yield Begun(outputs)


def can_skip(checkpoint: Checkpoint) -> bool:
    """Whether the first blocks of a checkpoint can be skipped. If not, all blocks have to run in every pass.

    Args:
        checkpoint: the checkpoint.

    Returns:
        False where later blocks use keys and values of earlier ones, where the list of blocks has others in between, and where
        weights wait on another device, because then a block is more than its module.
    """
    model, layout = checkpoint.model, checkpoint.layout
    shared = getattr(model.config.get_text_config(), "num_kv_shared_layers", 0)
    return not shared and not layout.left_out and not any("forward" in vars(one) for one in layout.find_blocks(model))
