"""The tokens with which a refusal can begin: those that complete one of a judge's phrases, or begin one."""

from collections.abc import Collection

from demur.core.errors import InputError
from demur.engine.checkpoints import Checkpoint
from demur.judges.beginnings import beginnings_of
from demur.measurements.exact_refusal.phrase_states import START, phrase_states
from demur.measurements.exact_refusal.token_bytes import token_bytes


def refusal_beginnings(checkpoint: Checkpoint, judge: str, vocabulary: int, stop_ids: Collection[int]) -> tuple[int, ...]:
    """The tokens with which a refusal can begin.

    Args:
        checkpoint: the checkpoint whose tokens they are.
        judge: the judge.
        vocabulary: how many token ids are looked at, from 0.
        stop_ids: the tokens that end a completion.

    Raises:
        InputError: if there is no such token.
    """
    tokens = token_bytes(checkpoint.tokenizer, vocabulary)
    moves = phrase_states(tokens, beginnings_of(judge), frozenset(stop_ids)).moves(START)
    # White space and tokens without text leave everything open, so they begin no refusal.
    begun = [index for index, state in zip(moves.ids.tolist(), moves.states, strict=True) if state != START]
    found = tuple(sorted({*moves.refusals.tolist(), *begun}))
    if not found:
        raise InputError(f"no token of {checkpoint.name!r} begins a refusal of the judge {judge!r}; choose another judge")
    return found
