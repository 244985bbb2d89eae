"""Rows of instruction and completion files: CSV, JSON, JSON lines, Parquet, or text with one instruction a line.

A row is an object with named values. A text that is empty, or that contains a NUL byte or half of a surrogate pair, is refused,
and the error names its row. White space around an instruction is removed.
"""

import csv
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from demur.core.errors import InputError, nearest

SUFFIXES = (".csv", ".json", ".jsonl", ".parquet", ".txt")
"""The endings of files that rows are read from."""

# Any: a row of a user's file.
Row = Mapping[str, Any]
"""One row: the values in a file by name. They have not been checked."""


def read_rows(path: Path) -> list[Row]:
    """Read the rows of an instruction or completion file.

    Args:
        path: a file with one of the endings in `SUFFIXES`.

    Returns:
        The rows in the order of the file, at least one. A file of plain texts has them under `instruction`.

    Raises:
        InputError: for a file that is missing, empty or not what its ending says.
    """
    if not path.is_file():
        raise InputError(f"there is no file {str(path)!r}")
    if path.suffix not in SUFFIXES:
        raise InputError(f"{str(path)!r} ends with {path.suffix!r}; rows are read from {', '.join(SUFFIXES)}")
    try:
        rows = _rows(path)
    except InputError:
        raise
    except (ValueError, csv.Error, RecursionError, OSError) as error:
        raise InputError(f"{str(path)!r} cannot be read as UTF-8 {path.suffix[1:]}: {error}") from error
    if not rows:
        raise InputError(f"{str(path)!r} holds no instructions or other rows")
    if any(not isinstance(row, dict) for row in rows):
        raise InputError(f"{str(path)!r} must hold objects or strings, one for each instruction")
    return rows


def _rows(path: Path) -> list[Any]:
    if path.suffix == ".parquet":
        try:
            import pandas

            return list(pandas.read_parquet(path).to_dict("records"))  # type: ignore[arg-type, unused-ignore]
        except ImportError as error:
            raise InputError(f"reading {str(path)!r} needs pyarrow; pip install 'demur[parquet]'") from error
        except (ValueError, OSError) as error:  # pyarrow's own errors are these
            raise InputError(f"{str(path)!r} cannot be read as parquet: {error}") from error
    with path.open(encoding="utf-8-sig", newline="") as file:
        if path.suffix == ".csv":
            return _csv_rows(file, path)
        if path.suffix == ".txt":
            # Not `splitlines`, which also splits at other characters; texts from the web contain those.
            return [{"instruction": line} for line in re.split(r"\r\n|\n|\r", file.read()) if line.strip()]
        if path.suffix == ".jsonl":
            loaded: Any = [json.loads(line) for line in file if line.strip()]
        else:
            loaded = json.load(file)
            if not isinstance(loaded, list):
                raise InputError(f"{str(path)!r} must hold a list of instructions, not a {type(loaded).__name__}")
    return [{"instruction": row} if isinstance(row, str) else row for row in loaded]


def _csv_rows(file: Iterable[str], path: Path) -> list[Any]:
    reader = csv.DictReader(file, strict=True)
    names = list(reader.fieldnames or ())
    if len(set(names)) < len(names):
        raise InputError(f"{str(path)!r} has two columns of the same name: {', '.join(map(repr, names))}; rename one")
    rows = []
    for number, row in enumerate(reader, start=1):
        if None in row:
            raise InputError(f"row {number} of {str(path)!r} has more columns than the header; quote texts that hold commas")
        rows.append(row)
    return rows


def only_column(rows: Sequence[Row], path: Path) -> str:
    """The column with the instructions: `instruction`, or the only one.

    Raises:
        InputError: if there is neither. The error lists the columns.
    """
    columns = [key for key in rows[0] if key and key != "split"]
    if not columns:
        raise InputError(f"row 1 of {str(path)!r} has no column with a name; expected one called 'instruction'")
    if "instruction" in columns:
        return "instruction"
    if len(columns) == 1:
        return columns[0]
    raise InputError(
        f"{str(path)!r} has the columns {', '.join(columns)}; name the one with instructions, as in {path.name}:{columns[0]}"
    )


def column_texts(rows: Sequence[Row], column: str, where: str) -> list[str]:
    """The instructions in one column.

    Args:
        rows: the rows of a file.
        column: the name of the column.
        where: the name of the file in error messages.

    Raises:
        InputError: for the first row that has no such column, or no proper text in it.
    """
    texts = []
    for number, row in enumerate(rows, start=1):
        if column not in row:
            raise InputError(f"{where!r} has no column {column!r} in row {number}; {nearest(column, map(str, row))}")
        text = row[column]
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"row {number} of {where!r} has no text in column {column!r}")
        if "\x00" in text:
            raise InputError(f"row {number} of {where!r} holds a NUL byte in column {column!r}; save a file in UTF-16 as UTF-8")
        if any("\ud800" <= mark <= "\udfff" for mark in text):
            raise InputError(
                f"row {number} of {where!r} holds half of a surrogate pair in column {column!r}, which is not a character"
            )
        texts.append(text.strip())
    return texts
