"""What a reader of a completion format gives: rows with texts, and what it left out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from demur.inputs.line_lists import COLUMN_NAMES

# Any: a value that was read from a user's JSON.
Json = Any
"""A value of JSON, of any type."""


USUAL_COLUMNS = frozenset(
    ("completion", "completions", "response", "responses", "output", "outputs", "generation", "generations", "answer", "answers")
) | {"model_output", "model_response", "generated_text"}
"""Names that columns of completions have in published files, in lower case."""


def is_column_name(name: str) -> bool:
    """Whether a name is usual for a column of instructions or of completions."""
    return name.casefold() in COLUMN_NAMES | USUAL_COLUMNS


@dataclass(frozen=True)
class CompletionRow:
    """One completion.

    Attributes:
        completion: its text.
        instruction: what was asked; None if the file does not say.
        facts: what tells it apart from others in the file, such as an id and the number of a sample.
    """

    completion: str
    instruction: str | None
    facts: Mapping[str, Json]


@dataclass(frozen=True)
class CompletionRows:
    """The completions of a file.

    Attributes:
        kind: the format, as messages call it.
        rows: the completions in the order of the file.
        notes: what was left out and why, in sentences without a full stop.
    """

    kind: str
    rows: tuple[CompletionRow, ...]
    notes: tuple[str, ...] = ()


def left_out(reasons: Mapping[str, int], n: int) -> tuple[str, ...]:
    """A note on entries without a completion; none if every entry has one.

    Args:
        reasons: how many entries have no completion, by reason.
        n: the number of entries.
    """
    if not any(reasons.values()):
        return ()
    said = ", ".join(f"{count} {reason}" for reason, count in reasons.items() if count)
    return (f"{sum(reasons.values())} of {n} entries have no completion and are left out: {said}",)
