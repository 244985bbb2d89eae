"""`demur.judge`: verdicts of one judge on completions or plain texts."""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, runtime_checkable

from demur.core.errors import InputError, WorkError
from demur.core.thought_marks import thought_at_end
from demur.judges.function_judge import FunctionJudge, is_function_judge
from demur.judges.judge import ChecksNeeds, Failure, HasCosts, Judge, Judged, Verdict, answers, get_judge


@runtime_checkable
class HasText(Protocol):
    """A completion."""

    @property
    def text(self) -> str:
        """The text of the completion."""
        ...


class JudgeFailed(WorkError):
    """A judge could not judge some completions. The verdicts on the others are kept here.

    Attributes:
        answers: one verdict or failure for each completion, in order.
    """

    def __init__(self, judge: Judge, answers: Sequence[Verdict | Failure]) -> None:
        self.answers = tuple(answers)
        failures = [answer for answer in answers if isinstance(answer, Failure)]
        needed = "" if judge.needs == "text" else f", which needs a {judge.needs},"
        super().__init__(
            f"the judge {judge.name!r}{needed} failed on {len(failures)} of {len(answers)} texts: {failures[0].reason}"
        )


def judge(
    completions: Iterable[HasText | str],
    name: str | Judge | Callable[..., object] = "prefix",
    *,
    instructions: Sequence[str] | None = None,
) -> list[Verdict]:
    """Judge completions, or plain texts.

    Args:
        completions: what `demur.generate` returns for one intervention, or texts.
        name: the judge: a registered name, `module:Class`, an object with what `demur.judges.judge.Judge` lists, or a function of
            the text, or of the text and the instruction. A function answers True for a refusal, a label (`refusal` counts as
            one), or a `Verdict`.
        instructions: one instruction for each text, for judges that read them. A completion brings its own.

    Returns:
        One verdict for each completion, in order.

    Raises:
        InputError: for an unknown judge, for a function that answers with something else, if the numbers of instructions and
            texts differ, and for anything but a list of completions or texts.
        WorkError: if the judge could not judge some of them. The error is a `demur.judges.judging.JudgeFailed`, whose `answers`
            hold the verdicts on the others.

    Example:
        >>> import demur
        >>> verdicts = demur.judge(["I'm sorry, but I can't help.", "Sure! Take two eggs."], "prefix")
        >>> [verdict.refusal for verdict in verdicts]
        [True, False]
        >>> verdicts[0].evidence
        "I'm sorry"
        >>> [verdict.label for verdict in demur.judge(["No.", "Sure!"], lambda text: text.startswith("No"))]
        ['refusal', 'other']
    """
    chosen: Judge = FunctionJudge(name) if is_function_judge(name) else get_judge(name)  # type: ignore[arg-type]
    given = answers(chosen, _batch(completions, instructions))
    verdicts = [answer for answer in given if isinstance(answer, Verdict)]
    if len(verdicts) < len(given):
        raise JudgeFailed(chosen, given)
    return verdicts


def check_judge(name: str | Judge) -> Judge:
    """The judge, if what it needs is there: a package, a model, the key of a server. No server is asked.

    Args:
        name: a registered name, `module:Class`, a TOML file, or a judge.

    Raises:
        InputError: for an unknown judge, and if something is missing.
    """
    found = get_judge(name)
    if isinstance(found, ChecksNeeds):
        found.check_needs()
    return found


def limited(judge: Judge, max_cost: float | None) -> Judge:
    """The judge with a limit of what its requests may cost; the judge itself if its requests cost nothing, or without a limit.

    Raises:
        InputError: for a judge that asks a server and has no prices.
    """
    return judge.limited(max_cost) if max_cost is not None and isinstance(judge, HasCosts) else judge


def _thought(item: object) -> str:
    """The mark of the thought with which a completion's prompt ends; empty if there is none, or if it is not known."""
    return str(getattr(item, "thought", "")) or thought_at_end(str(getattr(item, "prompt", "")))


def _batch(completions: Iterable[HasText | str], instructions: Sequence[str] | None) -> list[Judged]:
    for name, given in (("completions", completions), ("instructions", instructions)):
        if isinstance(given, str):
            raise InputError(f"{name} are one text, not a list of them; give [text]")
    if not isinstance(completions, Iterable):
        raise InputError(f"completions are a {type(completions).__name__}, not a list; give [completion]")
    items = list(completions)
    for item in items:
        if not isinstance(item, str | HasText):
            raise InputError(
                f"a {type(item).__name__} is not a completion; demur.generate gives one list of them for each intervention, so "
                "judge(rows[0]) judges those of the first"
            )
    if instructions is None:
        instructions = [str(getattr(item, "instruction", "")) for item in items]
    if len(instructions) != len(items):
        raise InputError(f"there are {len(items)} texts and {len(instructions)} instructions; give one instruction for each text")
    return [
        Judged(item, asked)
        if isinstance(item, str)
        else Judged(item.text, asked, getattr(item, "own_turn", None), _thought(item))
        for item, asked in zip(items, instructions, strict=True)
    ]
