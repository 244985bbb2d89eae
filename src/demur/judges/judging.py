"""`demur.judge`: verdicts of one judge on completions or plain texts."""

from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

from demur.core.errors import InputError, WorkError
from demur.judges.judge import Failure, Judged, Verdict, get_judge


@runtime_checkable
class HasText(Protocol):
    """A completion."""

    @property
    def text(self) -> str:
        """What was written."""
        ...


def judge(
    completions: Iterable[HasText | str], name: str = "prefix", *, instructions: Sequence[str] | None = None
) -> list[Verdict]:
    """Verdicts of one judge on completions, or on plain texts.

    A completion brings its own instruction; for plain texts they may be given, one each. Raises `InputError` for an unknown
    judge, for another number of instructions than of texts, and for what is no list of completions or texts; `WorkError` where
    the judge failed on one of them.
    """
    chosen = get_judge(name)
    if isinstance(completions, str):
        raise InputError("completions are one text, not a list of them; give [text]")
    items = list(completions)
    for item in items:
        if not isinstance(item, str | HasText):
            raise InputError(
                f"a {type(item).__name__} is no completion; demur.generate gives one list of them for each intervention, so "
                "judge(rows[0]) judges those of the first"
            )
    if instructions is None:
        instructions = [str(getattr(item, "instruction", "")) for item in items]
    if len(instructions) != len(items):
        raise InputError(f"there are {len(items)} texts and {len(instructions)} instructions; give one instruction a text")
    texts = (item if isinstance(item, str) else item.text for item in items)
    answers = chosen.judge([Judged(text, instruction) for text, instruction in zip(texts, instructions, strict=True)])
    verdicts = [answer for answer in answers if isinstance(answer, Verdict)]
    failures = [answer for answer in answers if isinstance(answer, Failure)]
    if failures:
        raise WorkError(f"the judge {chosen.name!r} failed on {len(failures)} of {len(items)} texts: {failures[0].reason}")
    return verdicts
