"""What a run gives to other programs: completions with their verdicts as CSV, JSONL or Parquet, and the result table as LaTeX.

One row a completion, the same columns and the same values in every format. Types are kept: a layer is a whole number where there
is one, token ids are a list, a verdict that was not given is missing. CSV, which knows no lists, holds them as JSON.
"""

import csv
import json
from collections.abc import Iterable
from io import BytesIO, StringIO
from typing import TYPE_CHECKING, Any

from demur.core.errors import InputError, nearest

if TYPE_CHECKING:
    import pandas

    from demur.runs.run import Run

FORMATS = ("csv", "jsonl", "parquet", "latex")

_KINDS = {
    **dict.fromkeys(("index", "layer", "n_tokens"), "whole"),
    "coefficient": "number",
    "control": "truth",
    "sites": "texts",
    **dict.fromkeys(("layers", "token_ids"), "wholes"),
}
"""Columns whose type their values do not always tell: pandas makes a number of a layer that is missing somewhere."""


def check_format(format: str) -> None:
    """Raises `InputError` with the nearest known one where there is no such format."""
    if format not in FORMATS:
        raise InputError(f"{format!r} is not a format of demur export; {nearest(format, FORMATS)}")


def exported(run: "Run", format: str) -> str | bytes:
    """The content of a file in one of `FORMATS`.

    Raises `InputError` for another format, a run without completions, and for Parquet where pyarrow is not installed.
    """
    check_format(format)
    if format == "latex":
        return _latex(run)
    table = run.completions()
    if table.empty:
        raise InputError(f"{str(run.path)!r} holds no completions yet; run its study to have some")
    kinds = {str(name): _kind(str(name), table[name]) for name in table.columns}
    columns = {name: [_value(value, kind) for value in table[name].tolist()] for name, kind in kinds.items()}
    if format == "parquet":
        return _parquet(columns, kinds)
    rows: Iterable[tuple[Any, ...]] = zip(*columns.values(), strict=True)
    if format == "jsonl":
        return "".join(json.dumps(dict(zip(kinds, row, strict=True)), ensure_ascii=False) + "\n" for row in rows)
    text = StringIO()
    plain, quoted = (csv.writer(text, lineterminator="\n", quoting=how) for how in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
    plain.writerow(kinds)
    for row in rows:
        values = [json.dumps(value) if isinstance(value, list) else value for value in row]
        # Up to Python 3.12 a carriage return alone is left without quotes, and readers end the row there.
        returns = any(isinstance(value, str) and "\r" in value for value in values)
        (quoted if returns else plain).writerow(values)
    return text.getvalue()


def _kind(name: str, column: "pandas.Series[Any]") -> str:
    from pandas.api import types

    if name.endswith("_refusal") or types.is_bool_dtype(column):
        return "truth"
    if types.is_integer_dtype(column):
        return "whole"
    return _KINDS.get(name, "number" if types.is_float_dtype(column) and column.notna().any() else "text")


def _value(value: Any, kind: str) -> Any:
    """A plain value of its type, None where it is missing."""
    if isinstance(value, list | tuple):
        return list(value)
    if value is None or value != value:
        return None
    return {"whole": int, "number": float, "truth": bool}.get(kind, str)(value)


def _parquet(columns: dict[str, list[Any]], kinds: dict[str, str]) -> bytes:
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
    schema = pyarrow.schema([(name, types[kind]) for name, kind in kinds.items()])
    buffer = BytesIO()
    parquet.write_table(pyarrow.table(columns, schema=schema), buffer)
    return buffer.getvalue()


def _latex(run: "Run") -> str:
    from demur.report import result_tables
    from demur.report.cell_view import entries
    from demur.report.complete_summary import parsed_summary
    from demur.report.latex import latex

    summary = parsed_summary(run.summary())
    caption = f"Refusals in every cell of {summary.study['name']}"
    return latex(result_tables.readable_results(entries(summary)), caption, "tab:results")
