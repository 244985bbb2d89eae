"""Rows of a JSON or JSON lines file, in the shapes in which programs write tables.

Known are a list, an object of columns, an object of rows, pandas' "split" form, an object with one list in it, and an object of
splits. The content decides between JSON and JSON lines, not the ending. Any other shape is refused, and the error says what it
is.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from demur.core.errors import InputError

# Any: a value that was read from a user's JSON.
Json = Any
"""A value of JSON, of any type."""

SPLIT_NAMES = ("train", "validation", "test")
"""The names of splits, which an object of lists may have as keys."""


def json_rows(text: str, path: Path) -> list[Json]:
    """The rows of a JSON or JSON lines file, not yet checked.

    Args:
        text: the content of the file.
        path: the file, for its ending and for error messages.

    Returns:
        The rows: objects, or texts, or whatever the file has in their place.

    Raises:
        InputError: for JSON of a shape that no table has.
        ValueError: for text that is neither JSON nor JSON lines.
    """
    return rows_of(json_value(text, path), path)


def json_value(text: str, path: Path) -> Json:
    """The value of a JSON file, or the list of values of a file of JSON lines.

    Raises:
        ValueError: for text that is neither.
    """
    lines_first = path.suffix.lower() != ".json"
    found = _lines(text) if lines_first else None
    if found is None:
        try:
            found = _loads(text)
        except json.JSONDecodeError:
            found = None if lines_first else _lines(text)
            if found is None:
                if lines_first:
                    _each_line(text)  # the error of the first line that is not JSON
                raise
    return found


def _loads(text: str) -> Json:
    return json.loads(text, object_pairs_hook=_object)


def _object(pairs: Sequence[tuple[str, Json]]) -> Mapping[str, Json]:
    """An object whose keys differ. Of two values under one key, `json` would keep the last without a word."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"an object has the key {next(key for key in keys if keys.count(key) > 1)!r} twice")
    return found


def _each_line(text: str) -> list[Json]:
    # Not `splitlines`, which also splits at characters that a JSON text may contain.
    return [_loads(line) for line in re.split(r"\r\n|\n|\r", text) if line.strip()]


def _lines(text: str) -> Json:
    """The value of every line, or the one value that the file has; None if a line is not JSON."""
    try:
        found = _each_line(text)
    except json.JSONDecodeError:
        return None
    # A list in one line is a file of JSON with the ending of JSON lines, unless it is a conversation or anything else.
    whole = len(found) == 1 and isinstance(found[0], list) and all(isinstance(row, str | dict) for row in found[0])
    return found[0] if whole and not any(isinstance(row, dict) and "role" in row for row in found[0]) else found


def rows_of(found: Any, path: Path) -> list[Json]:
    """The rows in a value that was read from JSON.

    Raises:
        InputError: for a shape that no table has.
    """
    if isinstance(found, list):
        return found
    rows = _rows_of_object(found) if isinstance(found, dict) else None
    if rows is not None:
        return rows
    kind = type(found).__name__
    if isinstance(found, dict):
        kind = f"an object with {', '.join(map(repr, list(found)[:6])) or 'no keys'}"
    raise InputError(
        f"{str(path)!r} must hold a list of instructions, not {kind}; write a list of objects, one for each instruction, or JSON "
        "lines"
    )


def _rows_of_object(found: Mapping[str, Json]) -> list[Json] | None:
    values = list(found.values())
    if {"columns", "data"} <= set(found) and _all_lists(found["data"]) and isinstance(found["columns"], list):
        return [dict(zip(map(str, found["columns"]), row, strict=False)) for row in found["data"]]
    if values and set(found) <= set(SPLIT_NAMES) and all(_all_rows(value) for value in values):
        return [_as_object(row) | {"split": split} for split, rows in found.items() for row in rows]
    if values and all(isinstance(value, dict) for value in values):
        return _rows_of_objects(found)
    lists = {key: value for key, value in found.items() if isinstance(value, list)}
    if len(lists) == len(found) > 0 and len({len(value) for value in lists.values()}) == 1 and not _all_objects(values[0]):
        return [dict(zip(found, cells, strict=True)) for cells in zip(*values, strict=True)]
    tables = [value for value in lists.values() if _all_objects(value)]
    if len(tables) == 1:
        return tables[0]
    return next(iter(lists.values())) if len(lists) == 1 and _all_rows(next(iter(lists.values()))) else None


def _rows_of_objects(found: Mapping[str, Mapping[str, Json]]) -> list[Json] | None:
    """The rows of an object of objects: columns with cells by row number, as pandas writes them, or rows by name."""
    inner = [set(value) for value in found.values()]
    by_number = all(keys and all(key.isdigit() for key in keys) for keys in inner)
    if by_number and all(key.isdigit() for key in found):
        return None
    if not by_number:
        return list(found.values())
    if any(keys != inner[0] for keys in inner):
        return None
    return [{name: cells[number] for name, cells in found.items()} for number in next(iter(found.values()))]


def _as_object(row: Json) -> dict[str, Json]:
    return {"instruction": row} if isinstance(row, str) else dict(row)


def _all_lists(value: Json) -> bool:
    return isinstance(value, list) and all(isinstance(row, list) for row in value)


def _all_rows(value: Json) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, str | dict) for row in value)


def _all_objects(value: Json) -> bool:
    return isinstance(value, Sequence) and bool(value) and all(isinstance(row, dict) for row in value)
