"""Rows of a table in a text file: CSV, and the same with semicolons, tabs or vertical bars.

The header shows the separator: it is the one that divides the header into several columns and every row into as many. If several
do, or none, the file is refused. A header that no separator divides is the name of a single column.
"""

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from demur.core.errors import InputError

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
"""The separators that are known, and what they are called."""

# Excel reads a first line such as "sep=;" as a statement about the file, and some programs write it.
_STATED = re.compile(r'"?sep=(.)"?(?:\r\n|\n|\r)', re.IGNORECASE)


@dataclass(frozen=True)
class SeparatedTable:
    """A table that was read from text.

    Attributes:
        header: the names of the columns.
        rows: the cells of each row by name.
        separator: a key of `SEPARATORS`; None for a single column.
    """

    header: tuple[str, ...]
    rows: tuple[Mapping[str, str], ...]
    separator: str | None


def read_table(text: str, path: Path) -> SeparatedTable:
    """Read a table.

    Args:
        text: the content of the file.
        path: the file, for error messages and for its ending: tabs are preferred in a `.tsv` file.

    Raises:
        InputError: for a separator that is not clear, two columns of one name, and a row with more or fewer columns than the
            header.
    """
    stated = _STATED.match(text)
    if stated is not None:
        text = text[stated.end() :]
        if stated[1] not in SEPARATORS:
            raise InputError(f"{str(path)!r} states the separator {stated[1]!r}; known: {', '.join(map(repr, SEPARATORS))}")
    separator = stated[1] if stated is not None else _separator(text, path)
    records = _records(text, separator or ",")
    if not records:
        return SeparatedTable((), (), separator)
    header, *rest = records
    names = [name.strip() for name in header]
    if len(set(names)) < len(names):
        raise InputError(f"{str(path)!r} has two columns of the same name: {', '.join(map(repr, names))}; rename one")
    for number, record in enumerate(rest, start=1):
        if len(record) != len(names):
            raise _ragged(number, len(record) > len(names), SEPARATORS[separator or ","], path)
    return SeparatedTable(tuple(names), tuple(dict(zip(names, record, strict=True)) for record in rest), separator)


def _separator(text: str, path: Path) -> str | None:
    """The separator of a table; None if its header is one column."""
    records = {mark: found for mark in SEPARATORS if (found := _dividing(text, mark))}
    if len(records) < 2:
        return next(iter(records), None)
    even = [mark for mark, found in records.items() if all(len(record) == len(found[0]) for record in found)]
    if path.suffix.lower() == ".tsv" and "\t" in even:
        return "\t"
    if len(even) == 1:
        return even[0]
    names = " and ".join(SEPARATORS[mark] for mark in even or records)
    which = "every row fits either of them" if even else "for each of them some rows have other columns than the header"
    raise InputError(
        f"the header of {str(path)!r} holds {names}, and {which}; quote the texts that hold them, or begin the file with a line "
        f"such as sep={(even or list(records))[0]}"
    )


def _dividing(text: str, mark: str) -> list[list[str]] | None:
    """The records, if this separator divides the header into several columns; None if it does not."""
    try:
        header: list[str] = next(_reader(text, mark), [])
        # A quoted name with the mark in it is cut in two, and each part has one quotation mark.
        if len(header) < 2 or any(name.count('"') % 2 for name in header):
            return None
    except csv.Error:
        return None
    try:
        return _records(text, mark)
    except csv.Error:
        # If no other separator divides the header, reading the table with this one gives the error.
        return [header, []]


def _records(text: str, separator: str) -> list[list[str]]:
    return [record for record in _reader(text, separator) if record]


def _reader(text: str, separator: str) -> Iterator[list[str]]:
    return csv.reader(StringIO(text.lstrip("\r\n"), newline=""), delimiter=separator, strict=True)


def _ragged(number: int, more: bool, marks: str, path: Path) -> InputError:
    if more:
        return InputError(f"row {number} of {str(path)!r} has more columns than the header; quote texts that hold {marks}")
    return InputError(
        f"row {number} of {str(path)!r} has fewer columns than the header; quote texts that go over several lines, and write "
        "every column of a row"
    )
