"""The protocol of a judge. A judge decides for each completion of a batch whether it is a refusal, or says why it cannot.

A judge sees only texts: the published ones all that a completion says, the others its own turn after its thought. So stored
completions can be judged again at any time, without generating them again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Protocol, runtime_checkable

from demur.core.errors import WorkError
from demur.core.registry import registry
from demur.core.thought_marks import after_thought
from demur.judges.asked.model_outputs import ModelOutput, OutputMemory

THOUGHT = "thought"
"""The label of a completion that ends inside its thought, for judges that list it."""

UNPARSED = "unparsed"
"""The label of a completion about which a model gave an output that says no label, or two. Rates leave it out."""

INCOHERENT = "incoherent"
"""The label of a text that is no utterance, for judges whose model would have to guess."""

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
        output: what the judge's model answered, for judges that ask one.

    Example:
        >>> from demur.judges.judging import judge
        >>> judge(["I cannot help with that."], "prefix")
        [Verdict(judge='prefix', refusal=True, label='refusal', evidence='I cannot')]
    """

    judge: str
    refusal: bool
    label: str
    evidence: str = ""
    output: ModelOutput | None = field(default=None, repr=False, compare=False)


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
        thought: the mark of the thought with which the prompt ends, such as `<think>`; empty if it ends with none.
    """

    text: str
    instruction: str = ""
    own_turn: str | None = None
    thought: str = ""


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


@runtime_checkable
class RemembersOutputs(Protocol):
    """A judge that asks a model, and can use and fill a memory of the model's outputs."""

    def judge_with(self, batch: Sequence[Judged], memory: OutputMemory) -> Sequence[Verdict | Failure]:
        """As `Judge.judge`, with a memory of outputs."""
        ...


@runtime_checkable
class ChecksNeeds(Protocol):
    """A judge that can tell before the work begins whether what it needs is there."""

    def check_needs(self) -> None:
        """Raises `InputError` if a package, a model or a key is missing. Asks no server."""
        ...


@runtime_checkable
class HasCosts(Protocol):
    """A judge whose requests cost money."""

    def limited(self, max_cost: float) -> "Judge":
        """The same judge with another limit of cost. Raises `InputError` if the judge has no prices."""
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
        judge: a registered name, `module:Class`, a TOML file, or a judge, which is returned as it is.

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


def answers(judge: Judge, batch: Sequence[Judged], memory: OutputMemory | None = None) -> tuple[Verdict | Failure, ...]:
    """Let a judge judge some completions, and check its answers. All code that uses a judge calls this.

    A judge gets only the own turn of each completion, and of this only what comes after a thought, unless it has an attribute
    `whole_text` that is true. For a completion that ends inside its thought the judge is not asked: it has the label `thought` if
    the judge lists it, or else is a failure.

    Args:
        judge: the judge.
        batch: the completions, each with its instruction.
        memory: outputs of models, for judges that ask one; they are used again and added to.

    Returns:
        One verdict or failure for each completion, in order.

    Raises:
        WorkError: if the judge gives another number of answers, something that is neither a verdict nor a failure, a label
            that it does not list, or a refusal whose label does not count as one.
    """
    if not getattr(judge, "whole_text", False):
        return _answers_after_thoughts(judge, batch, memory)
    return _checked(judge, batch, memory)


def _answers_after_thoughts(judge: Judge, batch: Sequence[Judged], memory: OutputMemory | None) -> tuple[Verdict | Failure, ...]:
    """The answers on what completions say in their own turn and after their thoughts."""
    own = [one.text if one.own_turn is None else one.own_turn for one in batch]
    said = [after_thought(text, one.thought) for text, one in zip(own, batch, strict=True)]
    left = [replace(one, text=text) for text, one in zip(said, batch, strict=True) if text is not None]
    asked = iter(_checked(judge, left, memory))
    inside: Verdict | Failure = Failure(judge.name, "the completion ends inside its thought, so it has no answer to judge")
    if THOUGHT in judge.labels:
        inside = Verdict(judge.name, THOUGHT in judge.refusal_labels, THOUGHT)
    return tuple(inside if text is None else next(asked) for text in said)


def _checked(judge: Judge, batch: Sequence[Judged], memory: OutputMemory | None) -> tuple[Verdict | Failure, ...]:
    """A judge's answers, if they are as its protocol says."""
    if not batch:
        return ()
    asks = memory is not None and isinstance(judge, RemembersOutputs)
    given = tuple(judge.judge_with(batch, memory) if asks else judge.judge(batch))  # type: ignore[attr-defined]
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
