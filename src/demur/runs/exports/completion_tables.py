"""Completions with their verdicts as tables: `csv`, `jsonl` and `parquet`.

Each completion is one row, with the same columns and values in every format. Types are kept: a layer is a whole number or
missing, token ids are a list, and a verdict that was not given is missing. CSV has no lists, so they are written as JSON there.
"""

import csv
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO, StringIO
from typing import TYPE_CHECKING, Any, ClassVar

from demur.core.errors import InputError
from demur.core.printable import cell, escaped

if TYPE_CHECKING:
    import pandas

    from demur.runs.run import Run

_KINDS = {
    **dict.fromkeys(("index", "layer", "n_tokens"), "whole"),
    "coefficient": "number",
    "control": "truth",
    "sites": "texts",
    **dict.fromkeys(("layers", "token_ids"), "wholes"),
}
"""Columns whose type must be given, because pandas turns whole numbers into fractions if some are missing."""

Value = str | int | float | bool | list[str] | list[int] | None


@dataclass(frozen=True)
class _Table:
    """The completions of a run by column, with the kind of value in each."""

    columns: Mapping[str, list[Value]]
    kinds: Mapping[str, str]

    def rows(self) -> list[tuple[Value, ...]]:
        return list(zip(*self.columns.values(), strict=True))


class JsonlExport:
    """One JSON object on each line."""

    name: ClassVar[str] = "jsonl"
    binary: ClassVar[bool] = False

    def content(self, run: "Run") -> str:
        """The lines.

        Args:
            run: the run.

        Raises:
            InputError: if the run has no completions.
        """
        table = _table(run)
        lines = (json.dumps(dict(zip(table.columns, row, strict=True)), ensure_ascii=False) for row in table.rows())
        # Control characters that JSON allows are escaped too. A reader of JSON gets the same texts.
        return "".join(f"{escaped(line)}\n" for line in lines)


class CsvExport:
    """Comma-separated values with a header, to be opened by people.

    A text that a spreadsheet would compute gets an apostrophe in front, and control characters are written out.
    """

    name: ClassVar[str] = "csv"
    binary: ClassVar[bool] = False

    def content(self, run: "Run") -> str:
        """The header and the rows.

        Args:
            run: the run.

        Raises:
            InputError: if the run has no completions.
        """
        return _csv(_table(run), cell)

    def raw_content(self, run: "Run") -> str:
        """The same with every text unchanged, for programs.

        Args:
            run: the run.

        Raises:
            InputError: if the run has no completions.
        """
        return _csv(_table(run), lambda value: value)


def _csv(table: _Table, form: Callable[[object], object]) -> str:
    text = StringIO()
    plain, quoted = (csv.writer(text, lineterminator="\n", quoting=how) for how in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
    plain.writerow(map(form, table.columns))
    for row in table.rows():
        values = [form(json.dumps(value) if isinstance(value, list) else value) for value in row]
        # Up to Python 3.12 a carriage return alone is written without quotes, and readers end the row there.
        returns = any(isinstance(value, str) and "\r" in value for value in values)
        (quoted if returns else plain).writerow(values)
    return text.getvalue()


class ParquetExport:
    """An Apache Parquet file with typed columns."""

    name: ClassVar[str] = "parquet"
    binary: ClassVar[bool] = True

    def content(self, run: "Run") -> bytes:
        """The file.

        Args:
            run: the run.

        Raises:
            InputError: if the run has no completions, or pyarrow is not installed.
        """
        table = _table(run)
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError as error:
            raise InputError("writing Parquet needs pyarrow; pip install 'demur[parquet]'") from error
        types = {
            "whole": pyarrow.int64(),
            "number": pyarrow.float64(),
            "truth": pyarrow.bool_(),
            "text": pyarrow.string(),
            "texts": pyarrow.list_(pyarrow.string()),
            "wholes": pyarrow.list_(pyarrow.int64()),
        }
        schema = pyarrow.schema([(name, types[kind]) for name, kind in table.kinds.items()])
        buffer = BytesIO()
        parquet.write_table(pyarrow.table(dict(table.columns), schema=schema), buffer)
        return buffer.getvalue()


def _table(run: "Run") -> _Table:
    frame = run.completions()
    if frame.empty:
        raise InputError(f"{str(run.path)!r} holds no completions yet; run its study to have some")
    kinds = {str(name): _kind(str(name), frame[name]) for name in frame.columns}
    return _Table({name: [_value(value, kind) for value in frame[name].tolist()] for name, kind in kinds.items()}, kinds)


def _kind(name: str, column: "pandas.Series[Any]") -> str:
    from pandas.api import types

    if name.endswith("_refusal") or types.is_bool_dtype(column):
        return "truth"
    if types.is_integer_dtype(column):
        return "whole"
    return _KINDS.get(name, "number" if types.is_float_dtype(column) and column.notna().any() else "text")


def _value(value: Any, kind: str) -> Value:
    """A plain value of its type, None if it is missing."""
    if isinstance(value, list | tuple):
        return list(value)
    if value is None or value != value:
        return None
    made: Value = {"whole": int, "number": float, "truth": bool}.get(kind, str)(value)
    return made
