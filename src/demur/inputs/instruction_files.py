"""Rows of instruction and completion files: tables in text, JSON, JSON lines, Parquet, or text with one instruction a line.

A row is an object with named values. They are not checked here; `instruction_columns` checks the instructions among them.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demur.core.errors import InputError
from demur.inputs.conversations import conversation
from demur.inputs.json_rows import json_rows
from demur.inputs.line_lists import instruction_lines
from demur.inputs.separated_tables import read_table
from demur.inputs.text_files import ending_of_another_kind, read_text

SUFFIXES = (".csv", ".json", ".jsonl", ".parquet", ".txt", ".tsv", ".ndjson")
"""The endings of files that rows are read from."""

# Any: a row of a user's file.
Row = Mapping[str, Any]
"""One row: the values in a file by name. They have not been checked."""


@dataclass(frozen=True)
class RowFile:
    """The rows of a file.

    Attributes:
        path: the file.
        rows: the rows in the order of the file, at least one. A file of plain texts has them under `instruction`.
        header: the names of the columns of a table in text; empty for other files, in which every value has its name beside it.
        separator: what separates the columns of such a table; None if there is one column, and for other files.
    """

    path: Path
    rows: tuple[Row, ...]
    header: tuple[str, ...] = ()
    separator: str | None = None


def has_known_ending(path: Path) -> bool:
    """Whether rows are read from files with this ending."""
    return path.suffix.lower() in SUFFIXES


def read_rows(path: Path) -> list[Row]:
    """The rows of an instruction or completion file; see `read_row_file`."""
    return list(read_row_file(path).rows)


def read_row_file(path: Path) -> RowFile:
    """Read the rows of an instruction or completion file.

    Args:
        path: a file with one of the endings in `SUFFIXES`.

    Returns:
        The rows.

    Raises:
        InputError: for a file that is missing, empty or not what its ending says.
    """
    if not path.is_file():
        raise InputError(f"there is no file {str(path)!r}")
    if not has_known_ending(path):
        kind = ending_of_another_kind(path.suffix.lower())
        what = f", so it is {kind}" if kind else f"; rows are read from {', '.join(SUFFIXES)}"
        raise InputError(f"{str(path)!r} ends with {path.suffix!r}{what}")
    try:
        found = _read(path)
    except InputError:
        raise
    except (ValueError, csv.Error, RecursionError, OSError) as error:
        raise InputError(f"{str(path)!r} cannot be read as UTF-8 {path.suffix[1:].lower()}: {error}") from error
    if not found.rows:
        raise InputError(f"{str(path)!r} holds no instructions or other rows")
    if any(not isinstance(row, dict) for row in found.rows):
        raise InputError(f"{str(path)!r} must hold objects or strings, one for each instruction")
    return found


def _read(path: Path) -> RowFile:
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return RowFile(path, tuple(_parquet_rows(path)))
    text = read_text(path)
    if suffix in (".csv", ".tsv"):
        table = read_table(text, path)
        return RowFile(path, table.rows, table.header, table.separator)
    if suffix == ".txt":
        return RowFile(path, tuple({"instruction": line} for line in instruction_lines(text, path)))
    return RowFile(path, tuple(map(_named, json_rows(text, path))))


def _named(row: Any) -> Any:
    """A row with a name for its value, if the row is only an instruction or a conversation."""
    if isinstance(row, str):
        return {"instruction": row}
    return {"messages": row} if isinstance(row, list) and any(isinstance(x, dict) for x in row) and conversation(row) else row


def _parquet_rows(path: Path) -> list[Row]:
    try:
        import pandas

        rows = pandas.read_parquet(path).to_dict("records")
    except ImportError as error:
        raise InputError(f"reading {str(path)!r} needs pyarrow; pip install 'demur[parquet]'") from error
    except (ValueError, OSError) as error:  # pyarrow's own errors are these
        raise InputError(f"{str(path)!r} cannot be read as parquet: {error}") from error
    return [{str(name): _plain(value) for name, value in row.items()} for row in rows]


def _plain(value: Any) -> Any:
    """A value with lists in place of numpy's arrays, at any depth."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
