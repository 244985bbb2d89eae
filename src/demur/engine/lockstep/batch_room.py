"""How many prompts and branches fit into a batch of a pair, so that it takes only a part of the memory of both checkpoints."""

from collections.abc import Sequence
from dataclasses import dataclass

from demur.core.errors import InputError
from demur.engine.checkpoints import Checkpoint
from demur.engine.continuations.tree_levels import HELD
from demur.engine.lockstep.matched_pair import MatchedPair
from demur.models.layouts import kv_width_of

SHARE = 0.06
"""Keys, values and logits of a batch may take this part of the memory of both checkpoints' weights. The activations of a forward
pass come on top of it, so that a measurement takes about a tenth in all."""
LEAST_BYTES = 2**24
"""Or 16 MiB, if that is more: models of a few layers in tests would otherwise run row by row."""


@dataclass(frozen=True)
class BatchRoom:
    """The memory of a batch: one half for the keys and values of its prompts, one half for its branches.

    Attributes:
        total: bytes for a batch.
        token: bytes of the keys and values of one token in all runs together.
        logits: bytes of the logits after one branch in all runs together.
    """

    total: int
    token: int
    logits: int

    def prompts(self, longest: int) -> int:
        """The most prompts in a batch whose longest prompt has so many tokens."""
        return max(1, self.total // 2 // (self.token * longest))

    def branches(self, tokens: int) -> int:
        """The most branches that run together, each with so many tokens after its prompt."""
        # A step holds the keys and values of its branches and of those that they continue.
        return max(1, self.total // 2 // (2 * tokens * self.token + self.logits))


def part_of_weights(*pair: Checkpoint) -> int:
    """How many bytes a batch of a pair may take."""
    return max(LEAST_BYTES, int(SHARE * sum(weight.nbytes for one in pair for weight in one.model.parameters())))


def batch_room(pair: MatchedPair, begins: Sequence[int], total: int | None = None) -> BatchRoom:
    """The memory of a batch of a pair.

    Args:
        pair: the checkpoints.
        begins: for each run of the target, how many blocks run once for all runs.
        total: bytes for a batch. By default `SHARE` of the memory of the weights, or `LEAST_BYTES`.

    Raises:
        InputError: if the config does not give the width of keys and values.
    """
    target = pair.target
    config, size = target.model.config.get_text_config(), target.dtype.itemsize
    width = kv_width_of(config)
    if width is None:
        raise InputError("the config does not give the width of keys and values, so no batch size can be found; give batch_bytes")
    # The source runs all blocks, and the target those that runs share and, for each run, those that they do not.
    blocks = target.n_layers + max(begins, default=0) + sum(target.n_layers - begin for begin in begins)
    return BatchRoom(
        total=part_of_weights(pair.source, target) if total is None else total,
        token=size * (2 * width * blocks + len(begins) * target.d_model),
        logits=size * (1 + len(begins) + HELD) * pair.vocabulary,
    )
