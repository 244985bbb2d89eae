"""Ends completions early, as soon as no continuation can change their verdicts.

A shortened completion gets the same verdict as the full one. A judge that needs the whole text is refused. So is a tokenizer that
changes text it has already decoded, because a verdict on an unfinished text may then change.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from demur.core.errors import InputError
from demur.judges.judge import Judge, get_judge


@runtime_checkable
class DecidesEarly(Protocol):
    """A judge that can tell, from the beginning of a completion, that no continuation changes its verdict."""

    def decided(self, text: str) -> bool:
        """Whether every completion that begins with `text` gets the same verdict. Called after each token, so it must be fast."""
        ...


def check_foreseen(judges: Sequence[str | Judge]) -> None:
    """Check that completions may end early for these judges.

    Raises:
        InputError: for a judge that needs whole completions, and for one that asks a model or a server.
    """
    for judge in judges:
        found = get_judge(judge)
        name = judge if isinstance(judge, str) else found.name
        advice = "leave until_verdict out, or let prefix be the only judge"
        if not isinstance(found, DecidesEarly):
            raise InputError(f"the judge {name!r} needs whole completions, so until_verdict cannot be used with it; {advice}")
        if found.needs != "text":
            raise InputError(f"the judge {name!r} needs a {found.needs}, so it cannot be asked after every token; {advice}")


def enough_for(judges: Sequence[str | Judge], tokenizer: Any) -> Callable[[Sequence[int]], bool]:
    """A function for `Decoding.enough`, which decoding calls after every token.

    Args:
        judges: judges whose verdicts are wanted, by name or as objects.
        tokenizer: the transformers tokenizer of the checkpoint that writes the completions.

    Returns:
        A function from the token ids of a completion to whether the verdicts of all these judges can no longer change.

    Raises:
        InputError: as `check_foreseen`, and for a tokenizer that removes spaces from text it has already decoded.
    """
    check_foreseen(judges)
    if getattr(tokenizer, "clean_up_tokenization_spaces", False):
        raise InputError(
            "this tokenizer removes spaces from text it has already decoded (clean_up_tokenization_spaces), so a verdict on an "
            "unfinished completion may change; leave until_verdict out"
        )
    wanted = [judge for given in judges if isinstance(judge := get_judge(given), DecidesEarly)]

    def enough(tokens: Sequence[int]) -> bool:
        text = tokenizer.decode(list(tokens), skip_special_tokens=True)
        return all(judge.decided(text) for judge in wanted)

    return enough
