"""When a completion may end early: where the verdicts that are wanted of it can no longer change.

The verdicts are those of full completions; the completions are shorter. A judge that needs a whole text is refused, and so is a
tokenizer that rewrites what it has written, for a beginning of its text says nothing certain.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from demur.core.errors import InputError
from demur.judges.judge import get_judge


@runtime_checkable
class Foresees(Protocol):
    """A judge that can say of a beginning that no continuation changes the verdict."""

    def decided(self, text: str) -> bool:
        """Whether the verdict on every completion that begins so is the same."""
        ...


def check_foreseen(judges: Sequence[str]) -> None:
    """Raises `InputError` for a judge that needs the whole completion."""
    for name in judges:
        if not isinstance(get_judge(name), Foresees):
            raise InputError(
                f"the judge {name!r} reads whole completions, so none can end at its verdict; leave until_verdict out, or "
                "let prefix be the only judge"
            )


def enough_for(judges: Sequence[str], tokenizer: Any) -> Callable[[Sequence[int]], bool]:
    """For `Decoding.enough`: whether the verdicts of these judges on a completion with these tokens can no longer change."""
    check_foreseen(judges)
    if getattr(tokenizer, "clean_up_tokenization_spaces", False):
        raise InputError(
            "this tokenizer takes back spaces that it has written (clean_up_tokenization_spaces), so the beginning of a "
            "completion decides nothing; leave until_verdict out"
        )
    wanted = [judge for name in judges if isinstance(judge := get_judge(name), Foresees)]

    def enough(tokens: Sequence[int]) -> bool:
        text = tokenizer.decode(list(tokens), skip_special_tokens=True)
        return all(judge.decided(text) for judge in wanted)

    return enough
