"""A base class for judge formats: the members that most of them share."""

from typing import Literal


class FormatBase:
    """A judge format that generates a short text about a refusal. A subclass sets `name` and says what it asks and reads."""

    name: str
    version: int = 1
    labels: tuple[str, ...] = ("refusal", "other")
    refusal_labels: tuple[str, ...] = ("refusal",)
    family: str = ""
    asks: Literal["chat", "text"] = "chat"
    answers: Literal["text", "classes", "tokens"] = "text"
    answer_tokens: tuple[str, ...] = ()
    max_tokens: int = 128
