"""Small HTML tables that show demur's objects in a notebook. All text in them is escaped."""

from collections.abc import Iterable, Sequence
from html import escape

_HEAD, _CELL = '<th style="text-align:left">', '<td style="text-align:left;white-space:pre-wrap">'


def facts_table(title: str, rows: Iterable[tuple[str, object]]) -> str:
    """A table with a heading and one row for each fact. Facts that are None or empty are omitted."""
    shown = [(name, value) for name, value in rows if value is not None and value != ""]
    return rows_table(title, (), shown)


def rows_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table with a heading, column names if there are any, and rows whose first cell is the row's name."""
    head = f"<tr>{''.join(f'<th>{escape(name)}</th>' for name in columns)}</tr>" if columns else ""
    body = "".join(f"<tr>{_HEAD}{escape(str(row[0]))}</th>{''.join(map(_cell, row[1:]))}</tr>" for row in rows)
    return f"<table><caption>{escape(title)}</caption>{head}{body}</table>"


def _cell(value: object) -> str:
    return f"{_CELL}{escape(str(value))}</td>"


def shortened(text: str, length: int = 60) -> str:
    """The text on one line, cut with an ellipsis if it is long."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "\N{HORIZONTAL ELLIPSIS}"
