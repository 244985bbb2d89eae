"""How demur's objects look in a notebook: a small table of facts, every sign of every name escaped."""

from collections.abc import Iterable, Sequence
from html import escape

_HEAD, _CELL = '<th style="text-align:left">', '<td style="text-align:left;white-space:pre-wrap">'


def facts_table(title: str, rows: Iterable[tuple[str, object]]) -> str:
    """A heading and a row for each fact; facts that are None or empty are left out."""
    shown = [(name, value) for name, value in rows if value is not None and value != ""]
    return rows_table(title, (), shown)


def rows_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A heading, names of columns where there are any, and rows of which the first cell names the row."""
    head = f"<tr>{''.join(f'<th>{escape(name)}</th>' for name in columns)}</tr>" if columns else ""
    body = "".join(f"<tr>{_HEAD}{escape(str(row[0]))}</th>{''.join(map(_cell, row[1:]))}</tr>" for row in rows)
    return f"<table><caption>{escape(title)}</caption>{head}{body}</table>"


def _cell(value: object) -> str:
    return f"{_CELL}{escape(str(value))}</td>"


def shortened(text: str, length: int = 60) -> str:
    """The text on one line, cut with an ellipsis where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "\N{HORIZONTAL ELLIPSIS}"
