"""Text that belongs to an instruction and stands beside it in the file: Alpaca's `input`, HarmBench's `ContextString`.

An instruction is one text, so what stands beside it is not asked. Where the column of the instructions was not named, a file with
such text is refused, because "Sum this text up." without its text measures something else. Where it was named, a note tells.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from demur.core.errors import InputError
from demur.inputs.conversations import EARLIER_TURN, SYSTEM_TURN, conversation
from demur.inputs.instruction_files import Row

# Without spaces and marks between words, and in lower case. tatsu-lab/alpaca: input. centerforaisafety/HarmBench: ContextString,
# ImageFileName and RedactedImageDescription. Dolly: context. OpenOrca: system_prompt. SQuAD and relatives: context, passage.
_CONTEXTS = frozenset(
    (
        "input",
        "inputs",
        "context",
        "contexts",
        "contextstring",
        "contextstr",
        "system",
        "systemprompt",
        "systemmessage",
        "systeminstruction",
        "history",
        "chathistory",
        "conversationhistory",
        "passage",
        "document",
        "background",
        "paragraph",
        "article",
        "dialogue",
        "previousturns",
        "image",
        "images",
        "imagefilename",
        "imagepath",
        "redactedimagedescription",
    )
)
_CONVERSATIONS = frozenset(("messages", "conversation", "conversations"))
_EMPTY = frozenset(("", "<noinput>", "noinput", "<no input>", "no input", "none", "nan", "null", "n/a", "na", "-"))


def lost_context(rows: Sequence[Row], column: str, texts: Sequence[str]) -> Mapping[str, int]:
    """How many rows have text beside the instruction, by the name of its column.

    Args:
        rows: the rows of a file.
        column: the column of the instructions.
        texts: the instructions. A context that is part of the instruction is not lost.
    """
    names = dict.fromkeys(
        str(name) for row in rows for name in row if name != column and _joined(str(name)) in _CONTEXTS | _CONVERSATIONS
    )
    counts = Counter(
        name for name in names for row, text in zip(rows, texts, strict=True) if _says_more(name, row.get(name), text)
    )
    return {name: counts[name] for name in names if counts[name]}


def context_note(columns: Mapping[str, int], parts: Mapping[str, int], n: int, where: str, column: str) -> str | None:
    """A sentence that tells what is not part of the instructions.

    Args:
        columns: from `lost_context`.
        parts: parts of conversations that are not in the instruction, with the number of rows.
        n: the number of rows.
        where: the name of the file.
        column: the column of the instructions.

    Returns:
        The sentence; None if nothing is lost.
    """
    found = [f"text in the column {name!r} ({count} of {n} rows)" for name, count in columns.items()]
    found += [f"{name} ({count} of {n} rows)" for name, count in parts.items()]
    if not found:
        return None
    return f"{where!r} has {', '.join(found)}, which is not part of the instructions in {column!r}"


def refuse_lost_context(note: str | None, way_out: str) -> None:
    """Refuse a file whose column was not named and whose instructions would lose text.

    Args:
        note: from `context_note`.
        way_out: how to name the column, such as "alpaca.json:instruction".

    Raises:
        InputError: if there is a note.
    """
    if note is not None:
        raise InputError(
            f"{note}; write a file whose instructions hold both, or name the column to ask them alone, as in {way_out}"
        )


def _joined(name: str) -> str:
    return "".join(mark for mark in name.casefold() if mark.isalnum())


# Any: a value in a user's file.
def _says_more(name: str, value: Any, text: str) -> bool:
    if _joined(name) in _CONVERSATIONS:
        # The conversation that the instruction was taken from. Only what comes before the instruction changes it.
        found = conversation(value)
        return found is not None and bool({SYSTEM_TURN, EARLIER_TURN} & set(found.left_out))
    if isinstance(value, str):
        stripped = value.strip()
        return stripped.casefold() not in _EMPTY and re.search(rf"(?<!\w){re.escape(stripped)}(?!\w)", text) is None
    return isinstance(value, list | dict | bytes) and bool(value)
