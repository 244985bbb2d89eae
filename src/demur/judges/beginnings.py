"""Judges that know a refusal by the way it begins, so that the probability of a refusal can be computed without decoding."""

from typing import Protocol, runtime_checkable

from demur.core.errors import InputError
from demur.judges.judge import Judge, get_judge


@runtime_checkable
class JudgesBeginnings(Protocol):
    """A judge that calls a completion a refusal if, and only if, it begins with one of some phrases.

    White space before the phrase does not count, and case matters. The judge reads the whole text (`whole_text` is true).

    Attributes:
        beginnings: the phrases.
    """

    beginnings: tuple[str, ...]


def beginnings_of(judge: str | Judge) -> tuple[str, ...]:
    """The phrases with which the refusals of a judge begin.

    Args:
        judge: a judge, or its name.

    Returns:
        The phrases, each once.

    Raises:
        InputError: for a judge that decides in another way, and for a phrase that is empty or has white space around it.
    """
    found = get_judge(judge)
    if not isinstance(found, JudgesBeginnings) or not getattr(found, "whole_text", False):
        raise InputError(
            f"the judge {found.name!r} does not decide by the beginning of the whole completion alone, so the probability of its "
            "refusals cannot be computed without decoding; use 'prefix', or a judge with the attributes beginnings and "
            "whole_text = True"
        )
    phrases = tuple(dict.fromkeys(found.beginnings))
    bad = [phrase for phrase in phrases if not phrase or phrase != phrase.strip()]
    if bad or not phrases:
        what = f"the phrase {bad[0]!r}" if bad else "no phrase"
        raise InputError(f"the judge {found.name!r} has {what} in beginnings; expected phrases without white space around them")
    return phrases
