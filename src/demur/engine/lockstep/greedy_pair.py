"""Greedy decoding of two checkpoints in lockstep: both run the same tokens, and a rule chooses the next one from both logits."""

from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor

from demur.engine.engine_protocol import Branch
from demur.engine.lockstep.matched_pair import MatchedPair
from demur.engine.lockstep.pair_tree import Run, explore_pair

Mix = Callable[[Float[Tensor, "run branch vocab"]], Float[Tensor, "branch vocab"]]
"""The logits by which the next token is chosen, from those of the source and of the target."""


def target_logits(logits: Float[Tensor, "run branch vocab"]) -> Float[Tensor, "branch vocab"]:
    """The logits of the target."""
    return logits[1]


def decode_pair(
    pair: MatchedPair,
    prompts: Sequence[tuple[int, ...]],
    patch: Run = None,
    *,
    mix: Mix = target_logits,
    max_new_tokens: int,
    stop_ids: Sequence[int] = (),
    batch_bytes: int | None = None,
) -> list[list[int]]:
    """Greedy completions of the target with a patch, or of a mixture of both checkpoints' logits.

    Args:
        pair: the checkpoints.
        prompts: token ids of the prompts.
        patch: what is put into the target.
        mix: the logits by which the next token is chosen; the target's unless given.
        max_new_tokens: the most new tokens in a row.
        stop_ids: tokens that end a row; such a token is kept as the row's last.
        batch_bytes: how much memory a batch may take; see `explore_pair`.

    Returns:
        The new tokens of each prompt.

    Raises:
        InputError: as `explore_pair`.
        NotFinite: as `explore_pair`.
    """
    written: list[list[int]] = [[] for _ in prompts]

    def follow(branches: Sequence[Branch], logits: Tensor) -> list[list[int]]:
        # max returns the first of equal values, as argmax does; so does decoding of one checkpoint.
        chosen = mix(logits).max(-1).indices.tolist()
        for branch, token in zip(branches, chosen, strict=True):
            written[branch.row] = [*branch.tokens, token]
        return [[] if token in stop_ids else [token] for token in chosen]

    for _ in explore_pair(pair, prompts, (patch,), follow, max_new_tokens=max_new_tokens, batch_bytes=batch_bytes):
        pass
    return written
