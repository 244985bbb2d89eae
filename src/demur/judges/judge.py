"""The protocol of a judge. A judge decides for each completion of a batch whether it is a refusal, or says why it cannot.

A judge sees only texts. So stored completions can be judged again at any time, without generating them again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Protocol, runtime_checkable

from demur.core.errors import WorkError
from demur.core.registry import registry

Needs = Literal["text", "model", "server"]
"""What a judge may need besides the texts: nothing more, a model in memory, or a server that answers."""


@dataclass(frozen=True)
class Verdict:
    """The answer of one judge for one completion.

    Attributes:
        judge: the judge's name.
        refusal: whether it calls the completion a refusal.
        label: the label it gives, one of the judge's `labels`.
        evidence: the words of the text that the judge based its verdict on; empty if there are none.

    Example:
        >>> from demur.judges.judging import judge
        >>> judge(["I cannot help with that."], "prefix")
        [Verdict(judge='prefix', refusal=True, label='refusal', evidence='I cannot')]
    """

    judge: str
    refusal: bool
    label: str
    evidence: str = ""


@dataclass(frozen=True)
class Failure:
    """A judge could not judge a completion. A failure is not a verdict: rates do not count it, and it can be judged again.

    Attributes:
        judge: the judge's name.
        reason: why, in one sentence.
    """

    judge: str
    reason: str


@dataclass(frozen=True)
class Judged:
    """One completion as a judge gets it.

    Attributes:
        text: the completion, without special tokens. For judges that do not read the whole text, only its own turn.
        instruction: the instruction; empty if it is not known.
        own_turn: the text up to the token that ends the turn, where the completion goes on after it; else None.
    """

    text: str
    instruction: str = ""
    own_turn: str | None = None


@runtime_checkable
class Judge(Protocol):
    """A judge.

    Attributes:
        name: its name in studies and results.
        version: the version of the rule. If it changes, completions are judged again.
        labels: all labels that it gives, in the order of tables; stored with a run.
        refusal_labels: those of them that count as refusals.
        reads_instruction: whether a verdict depends on the instruction.
        needs: what it needs: only the `text`, or also a `model` in memory or a `server` that answers.
    """

    name: str
    version: int | str
    labels: tuple[str, ...]
    refusal_labels: tuple[str, ...]
    reads_instruction: bool
    needs: Needs

    def judge(self, batch: Sequence[Judged]) -> Sequence[Verdict | Failure]:
        """Judge some completions.

        Args:
            batch: the completions, each with its instruction.

        Returns:
            One answer for each completion, in order: a `Verdict`, or a `Failure` for a completion that could not be judged.
        """
        ...


class TextJudge:
    """A base class for judges that decide each text by itself.

    `whole_text` is true for the published judges, which judge also what a completion says after its own turn.

    A subclass sets `name`, `version` and `labels` and says in `__call__` how it decides; `judge` then works on batches.
    """

    name: ClassVar[str]
    refusal_labels: tuple[str, ...] = ("refusal",)
    reads_instruction: bool = False
    needs: Needs = "text"
    whole_text: bool = False

    def __call__(self, text: str, instruction: str = "", /) -> Verdict | Failure:
        """The answer for one completion of one instruction."""
        raise NotImplementedError

    def judge(self, batch: Sequence[Judged]) -> Sequence[Verdict | Failure]:
        """One answer for each completion, in order."""
        return [self(one.text, one.instruction) for one in batch]


def get_judge(judge: str | Judge) -> Judge:
    """Find a judge.

    Args:
        judge: a registered name, `module:Class`, or a judge, which is returned as it is.

    Returns:
        The judge. Every call with one name returns the same object.

    Raises:
        InputError: for an unknown name, with the nearest known one; for an object that is not a judge, with what is missing.
    """
    if not isinstance(judge, str):
        registry("judge").check(judge, type(judge).__name__)
        return judge
    found: Judge = registry("judge").get(judge)
    return found


def answers(judge: Judge, batch: Sequence[Judged]) -> tuple[Verdict | Failure, ...]:
    """Let a judge judge some completions, and check its answers. All code that uses a judge calls this.

    A judge gets only the own turn of each completion, unless it has an attribute `whole_text` that is true.

    Args:
        judge: the judge.
        batch: the completions, each with its instruction.

    Returns:
        One verdict or failure for each completion, in order.

    Raises:
        WorkError: if the judge gives another number of answers, something that is neither a verdict nor a failure, a label
            that it does not list, or a refusal whose label does not count as one.
    """
    if not getattr(judge, "whole_text", False):
        batch = [one if one.own_turn is None else replace(one, text=one.own_turn) for one in batch]
    given = tuple(judge.judge(batch))
    if len(given) != len(batch):
        raise WorkError(f"the judge {judge.name!r} gave {len(given)} answers for {len(batch)} completions; one each is expected")
    for answer in given:
        if isinstance(answer, Failure):
            continue
        if not isinstance(answer, Verdict):
            raise WorkError(f"the judge {judge.name!r} answered with a {type(answer).__name__}; expected a Verdict or a Failure")
        if answer.label not in judge.labels or answer.refusal != (answer.label in judge.refusal_labels):
            raise WorkError(
                f"the judge {judge.name!r} gave the label {answer.label!r} with refusal={answer.refusal}; its labels are "
                f"{', '.join(judge.labels)}, of which {', '.join(judge.refusal_labels) or 'none'} count as refusals"
            )
    return given
