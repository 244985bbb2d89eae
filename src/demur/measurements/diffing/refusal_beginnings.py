"""The tokens with which a refusal can begin, in both checkpoints of a pair."""

from typing import TYPE_CHECKING

from demur.core.errors import InputError
from demur.measurements.diffing.diff_runs import PairSettings

if TYPE_CHECKING:
    from demur.engine.lockstep.matched_pair import MatchedPair


def refusal_tokens(pair: "MatchedPair", settings: PairSettings) -> tuple[int, ...]:
    """The tokens with which a refusal can begin: those that complete one of the judge's phrases, or begin one.

    Args:
        pair: the checkpoints.
        settings: the judge.

    Raises:
        InputError: if there is no such token.
    """
    from demur.judges.beginnings import beginnings_of
    from demur.measurements.exact_refusal.phrase_states import START, phrase_states
    from demur.measurements.exact_refusal.token_bytes import token_bytes

    tokens = token_bytes(pair.target.tokenizer, pair.vocabulary)
    moves = phrase_states(tokens, beginnings_of(settings.judge), frozenset(pair.stop_ids)).moves(START)
    # White space and tokens without text leave everything open, so they begin no refusal.
    begun = [index for index, state in zip(moves.ids.tolist(), moves.states, strict=True) if state != START]
    found = tuple(sorted({*moves.refusals.tolist(), *begun}))
    if not found:
        raise InputError(
            f"no token of {pair.target.name!r} begins a refusal of the judge {settings.judge!r}; choose another judge"
        )
    return found
