"""A base class for judge formats: the members that most of them share."""

from typing import ClassVar, Literal


class FormatBase:
    """A judge format that generates a short text about a refusal. A subclass sets `name` and says what it asks and reads."""

    name: ClassVar[str]
    version: ClassVar[int] = 1
    labels: ClassVar[tuple[str, ...]] = ("refusal", "other")
    refusal_labels: ClassVar[tuple[str, ...]] = ("refusal",)
    family: ClassVar[str] = ""
    asks: ClassVar[Literal["chat", "text"]] = "chat"
    answers: ClassVar[Literal["text", "classes", "tokens"]] = "text"
    answer_tokens: ClassVar[tuple[str, ...]] = ()
    max_tokens: ClassVar[int] = 128
