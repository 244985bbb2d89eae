"""The instructions in the rows of a file: which column holds them, and their texts.

A text that is empty, or that contains a NUL byte or half of a surrogate pair, is refused, and the error names its row. White
space around an instruction is removed. A conversation in place of a text gives its first turn of the user.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from demur.core.errors import InputError, nearest
from demur.inputs.conversations import conversation, looks_written_out
from demur.inputs.instruction_files import Row, RowFile
from demur.inputs.line_lists import COLUMN_NAMES, refuse_numbering
from demur.inputs.separated_tables import SEPARATORS

_LETTERS = re.compile(r"(?=.*[^\W\d])[\w .()/-]*[\w)]")
_ARTICLES = frozenset(("a", "an", "the", "me", "my", "your", "this", "that"))


@dataclass(frozen=True)
class ColumnTexts:
    """The instructions of one column.

    Attributes:
        texts: the instructions.
        left_out: how many rows have conversations with a part that is not in the instruction, by the name of this part.
    """

    texts: tuple[str, ...]
    left_out: Mapping[str, int]


def only_column(found: RowFile) -> str:
    """The column with the instructions: `instruction`, or the only one.

    Raises:
        InputError: if there is neither, and if the header of a table is probably its first row. The error lists the columns.
    """
    path = found.path
    # Programs write the numbers of rows into a column without a name.
    columns = [key for key in found.rows[0] if key and key != "split" and not key.startswith("Unnamed:")]
    if not columns:
        raise InputError(f"row 1 of {str(path)!r} has no column with a name; expected one called 'instruction'")
    if "instruction" in columns:
        return "instruction"
    refuse_missing_header(found)
    if len(columns) == 1:
        return columns[0]
    likely = next((name for name in columns if name.casefold() in COLUMN_NAMES), columns[0])
    separated = f", separated by {SEPARATORS[found.separator]}" if found.separator not in (None, ",") else ""
    raise InputError(
        f"{str(path)!r} has the columns {', '.join(columns)}{separated}; name the one with instructions, as in "
        f"{path.name}:{likely}"
    )


def refuse_missing_header(found: RowFile) -> None:
    """Refuse a table whose first line is probably no header, because it would be lost.

    Raises:
        InputError: for a header that reads like a row of the table.
    """
    names = [name for name in found.header if name]
    odd = [name for name in names if (not _is_name(name) if len(names) == 1 else _is_no_name(name))]
    if odd:
        raise InputError(
            f"the first line of {str(found.path)!r} has {odd[0][:60]!r} in place of the name of a column; write a line of names "
            f"above it, such as instruction, or name the column, as in {found.path.name}:NAME, if this is its name"
        )


def _is_name(name: str) -> bool:
    """Whether the only cell of a header may be a name: one word, or two or three of which one is a usual name of instructions."""
    words = name.casefold().replace("(", " ").replace(")", " ").split()
    if _LETTERS.fullmatch(name) is None or len(words) > 3 or _ARTICLES & set(words):
        return False
    return len(words) == 1 or bool(COLUMN_NAMES & set(words))


def _is_no_name(name: str) -> bool:
    """Whether one of several cells of a header is certainly no name: a number, a sentence, or many words."""
    return name.replace(".", "", 1).isdigit() or name.endswith(("?", "!", ".")) or len(name.split()) > 5


def column_texts(rows: Sequence[Row], column: str, where: str) -> list[str]:
    """The instructions in one column; see `read_column`."""
    return list(read_column(rows, column, where).texts)


def read_column(rows: Sequence[Row], column: str, where: str) -> ColumnTexts:
    """Read the instructions in one column.

    Args:
        rows: the rows of a file.
        column: the name of the column.
        where: the name of the file in error messages.

    Raises:
        InputError: for the first row that has no such column, or no proper text in it, and for instructions that all begin with
            their number.
    """
    texts = []
    left_out: Counter[str] = Counter()
    for number, row in enumerate(rows, start=1):
        if column not in row:
            raise InputError(f"{where!r} has no column {column!r} in row {number}; {nearest(column, map(str, row))}")
        value = row[column]
        turns = conversation(value)
        if turns is not None:
            left_out.update(turns.left_out)
            value = turns.request
        elif isinstance(value, str) and looks_written_out(value) and value.strip().startswith("[") and value.strip()[-1] == "]":
            raise InputError(
                f"row {number} of {where!r} has a conversation in column {column!r} that cannot be read; write it as JSON, or "
                "write the file as .jsonl"
            )
        texts.append(_checked(value, f"row {number} of {where!r}", column))
    refuse_numbering(texts, where)
    return ColumnTexts(tuple(texts), left_out)


def _checked(text: object, row: str, column: str) -> str:
    if not isinstance(text, str) or not text.strip():
        given = f"; it has a {type(text).__name__}" if isinstance(text, list | dict) else ""
        raise InputError(f"{row} has no text in column {column!r}{given}")
    if "\x00" in text:
        raise InputError(f"{row} holds a NUL byte in column {column!r}; save a file in UTF-16 as UTF-8")
    if any("\ud800" <= mark <= "\udfff" for mark in text):
        raise InputError(f"{row} holds half of a surrogate pair in column {column!r}, which is not a character")
    return text.strip()
