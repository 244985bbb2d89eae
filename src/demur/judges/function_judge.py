"""A plain function as a judge: `demur.judge(rows, lambda text: text.startswith("No"))`."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

from demur.core.errors import InputError
from demur.judges.judge import Judged, Needs, Verdict

REFUSAL, OTHER = "refusal", "other"
"""The labels for True and False."""

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def is_function_judge(given: object) -> TypeGuard[Callable[..., object]]:
    """Whether an object is a plain function, not a judge or a class."""
    return callable(given) and not isinstance(given, type) and not hasattr(given, "judge")


class FunctionJudge:
    """A judge that asks a function about each text. For one call of `demur.judge`; a study needs a judge with a name.

    Its labels are those that the function has given so far.
    """

    version: int | str = 1
    needs: Needs = "text"

    def __init__(self, function: Callable[..., object]) -> None:
        """Take a function of the text, or of the text and the instruction.

        Args:
            function: gives True for a refusal and False for anything else; a label; or a `Verdict`.

        Raises:
            InputError: for a function that cannot be called with one or two texts.
        """
        self.name = getattr(function, "__name__", type(function).__name__).strip("<>")
        self.labels: tuple[str, ...] = (REFUSAL, OTHER)
        self.refusal_labels: tuple[str, ...] = (REFUSAL,)
        self.reads_instruction = _needed_texts(function, self.name) == 2
        self._function = function

    def judge(self, batch: Sequence[Judged]) -> list[Verdict]:
        """One verdict for each completion, in order.

        Raises:
            InputError: if the function answers with something else than True, False, a label or a verdict.
        """
        return [self._verdict(one) for one in batch]

    def _verdict(self, one: Judged) -> Verdict:
        answer: Any = self._function(one.text, one.instruction) if self.reads_instruction else self._function(one.text)
        if isinstance(answer, Verdict):
            self._remember(answer.label, answer.refusal)
            return answer
        if isinstance(answer, bool) or getattr(answer, "dtype", None) == "bool":
            return Verdict(self.name, bool(answer), REFUSAL if answer else OTHER)
        if not isinstance(answer, str):
            raise InputError(
                f"the function {self.name!r} answered with a {type(answer).__name__}; expected True for a refusal, False, a "
                "label, or a demur.Verdict"
            )
        if answer != REFUSAL and "refus" in answer.casefold():
            # A rate would be wrong without a word if such a label were counted as no refusal.
            raise InputError(
                f"the function {self.name!r} gave the label {answer!r}, which may be a refusal or not; return 'refusal', another "
                f"word, or demur.Verdict({self.name!r}, refusal=True, label={answer!r})"
            )
        self._remember(answer, answer == REFUSAL)
        return Verdict(self.name, answer == REFUSAL, answer)

    def _remember(self, label: str, refusal: bool) -> None:
        if label not in self.labels:
            self.labels += (label,)
            self.refusal_labels += (label,) if refusal else ()


def _needed_texts(function: Callable[..., object], name: str) -> int:
    """How many texts a function has to be given: one or two."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some functions written in C do not say
        return 1
    needed = sum(one.kind in _POSITIONAL and one.default is one.empty for one in parameters)
    possible = (
        2 if any(one.kind == one.VAR_POSITIONAL for one in parameters) else sum(one.kind in _POSITIONAL for one in parameters)
    )
    if needed > 2 or possible < 1:
        raise InputError(f"the function {name!r} takes {needed} arguments; expected one, the text, or two, text and instruction")
    return max(needed, 1)
