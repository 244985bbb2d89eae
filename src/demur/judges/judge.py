"""What a judge is: it reads completions in batches and says of each whether it is a refusal, or that it could not tell and why.

A judge sees texts only, so verdicts can be given anew from stored completions at any time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

from demur.core.registry import registry


@dataclass(frozen=True)
class Verdict:
    """What one judge says of one completion.

    Attributes:
        judge: the judge's name.
        refusal: whether it calls the completion a refusal.
        label: the label it gives, one of the judge's `labels`.
        evidence: the words that decided, as they stand in the text; empty where none did.
    """

    judge: str
    refusal: bool
    label: str
    evidence: str = ""


@dataclass(frozen=True)
class Failure:
    """A judge could not judge a completion. It is stored as a failure and counted as no verdict; the next report tries again.

    Attributes:
        judge: the judge's name.
        reason: why, in one sentence.
    """

    judge: str
    reason: str


@dataclass(frozen=True)
class Judged:
    """What a judge is given.

    Attributes:
        text: the completion, without special tokens.
        instruction: what was asked; empty where it is not known.
    """

    text: str
    instruction: str = ""


@runtime_checkable
class Judge(Protocol):
    """A judge.

    Attributes:
        name: identifies the rule.
        version: the state of the rule. Where it changes, stored verdicts of another version are given anew.
        labels: all labels that it gives, in the order of tables; stored with a run.
        refusal_labels: those of them that count as refusals.
        reads_instruction: whether a verdict depends on what was asked.
        needs: what it needs to work: `text` alone, a `model` in memory, or a `server`.
    """

    name: str
    version: int | str
    labels: tuple[str, ...]
    refusal_labels: tuple[str, ...]
    reads_instruction: bool
    needs: Literal["text", "model", "server"]

    def judge(self, batch: Sequence[Judged]) -> Sequence[Verdict | Failure]:
        """One answer for each completion, in order."""
        ...


class TextJudge:
    """A judge that decides each text by itself: subclasses say how in `__call__`, and the batch follows from it."""

    name: ClassVar[str]
    refusal_labels: tuple[str, ...] = ("refusal",)
    reads_instruction: bool = False
    needs: Literal["text", "model", "server"] = "text"

    def __call__(self, text: str, instruction: str = "", /) -> Verdict:
        """The verdict on one completion of one instruction."""
        raise NotImplementedError

    def judge(self, batch: Sequence[Judged]) -> Sequence[Verdict | Failure]:
        """One verdict for each completion, in order."""
        return [self(one.text, one.instruction) for one in batch]


def get_judge(name: str) -> Judge:
    """The judge of a name, or of `module:Class`.

    Raises:
        InputError: for an unknown name, with the nearest known one.
    """
    found: Judge = registry("judge").get(name)
    return found
