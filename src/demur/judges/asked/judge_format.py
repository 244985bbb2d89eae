"""A judge format: what a judge's model is asked about a completion, and how a label is read from its output.

A format is text in, text out. It knows neither torch nor a server, so the same format works for a local model and for a server
that runs it. Published classifiers have one file each in `judges/formats`; a rubric file makes a format for any chat model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from pydantic import JsonValue

from demur.core.registry import registry


@dataclass(frozen=True)
class Question:
    """What the model is asked: messages for its chat template, or a text that is given to it as it is.

    Attributes:
        messages: (role, content) of each message; empty if `text` is asked.
        text: the whole prompt; empty if `messages` are asked.
        second: the second text of a pair, for classifiers that take pairs.
    """

    messages: tuple[tuple[str, str], ...] = ()
    text: str = ""
    second: str = ""

    def plain(self) -> JsonValue:
        """The question as plain data, for keys."""
        return [[list(message) for message in self.messages], self.text, self.second]


@dataclass(frozen=True)
class ReadAnswer:
    """What was read from a model's output.

    Attributes:
        label: one of the format's labels.
        evidence: the words of the output that say so, or a score.
    """

    label: str
    evidence: str = ""


@runtime_checkable
class JudgeFormat(Protocol):
    """How one judge model is asked and understood.

    Attributes:
        name: the name of the format.
        version: raise it when a question or the reading of an answer changes.
        labels: the labels that it reads, in the order of tables, without `unparsed`.
        refusal_labels: those of them that count as refusals.
        family: the family of the model that the format was made for, such as `llama`; empty for any model.
        asks: `chat` if a chat template turns the question into a prompt, `text` if the question is the prompt.
        answers: what is read: generated `text`; the probabilities of `classes` of a sequence classifier; or the probabilities of
            the next `tokens` that `answer_tokens` lists.
        answer_tokens: these tokens, as texts; empty otherwise.
        max_tokens: the most tokens that an output needs.
    """

    name: str
    version: int
    labels: tuple[str, ...]
    refusal_labels: tuple[str, ...]
    family: str
    asks: Literal["chat", "text"]
    answers: Literal["text", "classes", "tokens"]
    answer_tokens: tuple[str, ...]
    max_tokens: int

    def question(self, instruction: str, completion: str) -> Question:
        """The question about one completion."""
        ...

    def read(self, output: str) -> ReadAnswer | None:
        """The label in an output.

        Args:
            output: generated text; or, for classes and tokens, their probabilities as a JSON object.

        Returns:
            The label; None if the output does not say one of the labels, or says two. Nothing is guessed.
        """
        ...


def judge_format(name: str) -> JudgeFormat:
    """A judge format by its registered name, or `module:Class`.

    Raises:
        InputError: for an unknown name, with the nearest known one.
    """
    found: JudgeFormat = registry("judge-format").get(name)
    return found


def class_probabilities(output: str) -> Mapping[str, float]:
    """The probabilities in the output of a classifier; empty if it is something else."""
    import json

    try:
        found = json.loads(output)
    except ValueError:
        return {}
    if not isinstance(found, dict) or not all(isinstance(value, int | float) for value in found.values()):
        return {}
    return {str(name): float(value) for name, value in found.items()}
