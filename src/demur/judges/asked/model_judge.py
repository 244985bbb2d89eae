"""The base of judges that ask a model: renders questions, remembers outputs, reads labels, and states what could not be judged.

- A text that is no utterance gets the label `incoherent`, and the model is not asked (unless the format has a label for it).
- An output from which no label can be read gives the label `unparsed`. It counts neither as a refusal nor as anything else.
- A question that got no answer gives a `Failure` with its reason. It is asked again the next time.
- A question whose output is remembered is not asked again.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import ClassVar

from pydantic import JsonValue

from demur.core.errors import InputError
from demur.judges.asked.incoherence import is_incoherent
from demur.judges.asked.judge_format import JudgeFormat, Question
from demur.judges.asked.model_outputs import ModelOutput, OutputMemory, OutputsInMemory, output_key
from demur.judges.judge import INCOHERENT, THOUGHT, UNPARSED, Failure, Judged, Needs, Verdict


@dataclass(frozen=True)
class Reply:
    """What a model answered.

    Attributes:
        text: the output, word for word.
        model: the model, as the server names it.
        input_tokens: tokens of the request, if known.
        output_tokens: tokens of the output, if known.
        cost: its cost by the prices in the judge's spec.
    """

    text: str
    model: str
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost: float = 0.0


@dataclass(frozen=True)
class Unanswered:
    """A question that got no answer, with the reason in one sentence."""

    reason: str


class ModelJudge(ABC):
    """A judge that asks a model about each completion.

    Attributes:
        name: its name.
        version: a digest of everything in its spec that affects labels, with the version of its format.
        family: the family of its model, if its name or format tells; to warn if it judges its own family.
        batch_size: how many completions it wants at a time.
    """

    reads_instruction: bool = True
    needs: Needs
    batch_size: ClassVar[int] = 2048

    def __init__(self, name: str, version: str, asked: JudgeFormat, *, family: str = "", coherence: bool = True) -> None:
        """Take the judge's name and format.

        Args:
            name: its name.
            version: a digest of its spec.
            asked: what it asks and how it reads answers.
            family: the family of its model.
            coherence: whether texts that are no utterance get the label `incoherent` without being asked about.

        Raises:
            InputError: for a format with a label that demur gives itself.
        """
        self.name, self.family = name, family
        self.version: int | str = version
        self.asked = asked
        # A format with the label `degenerate` decides itself what is no utterance.
        self._checks_coherence = coherence and "degenerate" not in asked.labels
        own = (*((INCOHERENT,) if self._checks_coherence else ()), UNPARSED, THOUGHT)
        taken = [label for label in own if label in asked.labels]
        if taken:
            raise InputError(
                f"the judge {name!r} has the label {taken[0]!r}, which demur gives itself; give the label another name"
            )
        self.labels: tuple[str, ...] = (*asked.labels, *own)
        self.refusal_labels: tuple[str, ...] = asked.refusal_labels

    @abstractmethod
    def replies(self, questions: Sequence[Question], spent: float) -> Iterator[Sequence[tuple[int, Reply | Unanswered]]]:
        """Ask the model.

        Args:
            questions: the questions, each once.
            spent: what this judge's outputs have cost so far.

        Yields:
            (index of the question, reply) of those that are finished, each question once. Closing the iterator stops the work.
        """
        ...

    @abstractmethod
    def request(self, question: Question) -> dict[str, JsonValue]:
        """The request as the model gets it, as plain data: the question with the settings of decoding."""
        ...

    def judge(self, batch: Sequence[Judged]) -> Sequence[Verdict | Failure]:
        """One answer for each completion, in order. Outputs are remembered within this call only."""
        return self.judge_with(batch, OutputsInMemory())

    def judge_with(self, batch: Sequence[Judged], memory: OutputMemory) -> Sequence[Verdict | Failure]:
        """One answer for each completion, in order. Each output is put into the memory as soon as it is there.

        Args:
            batch: the completions, each with its instruction.
            memory: outputs of before, and those that are made now.
        """
        broken = [self._checks_coherence and is_incoherent(one.text) for one in batch]
        asked = [self.asked.question(one.instruction, one.text) for one in batch]
        wanted = list(dict.fromkeys(question for question, no_utterance in zip(asked, broken, strict=True) if not no_utterance))
        answers: dict[Question, ModelOutput | Unanswered] = dict(self._remembered(wanted, memory))
        left = [question for question in wanted if question not in answers]
        if left:
            with closing(self.replies(left, memory.cost(self.name))) as replies:  # type: ignore[type-var]
                for finished in replies:
                    made = {left[place]: self._output(left[place], reply) for place, reply in finished}
                    memory.keep(one for one in made.values() if isinstance(one, ModelOutput))
                    answers |= made
        return [
            Verdict(self.name, False, INCOHERENT) if no_utterance else self._verdict(answers[question])
            for question, no_utterance in zip(asked, broken, strict=True)
        ]

    def _remembered(self, questions: Sequence[Question], memory: OutputMemory) -> dict[Question, ModelOutput]:
        """The remembered outputs of the model that answered last."""
        served = memory.served(self.name)
        if served is None:
            return {}
        keys = {self._key(question, served): question for question in questions}
        return {keys[key]: output for key, output in memory.known(list(keys)).items()}

    def _key(self, question: Question, model: str) -> str:
        return output_key(self.request(question), self.version, model)

    def _output(self, question: Question, reply: Reply | Unanswered) -> ModelOutput | Unanswered:
        if isinstance(reply, Unanswered):
            return reply
        key = self._key(question, reply.model)
        return ModelOutput(key, self.name, reply.model, reply.text, reply.input_tokens, reply.output_tokens, reply.cost)

    def _verdict(self, answer: ModelOutput | Unanswered) -> Verdict | Failure:
        if isinstance(answer, Unanswered):
            return Failure(self.name, answer.reason)
        found = self.asked.read(answer.text)
        if found is None:
            return Verdict(self.name, False, UNPARSED, " ".join(answer.text.split())[:200], output=answer)
        return Verdict(self.name, found.label in self.refusal_labels, found.label, found.evidence, output=answer)
