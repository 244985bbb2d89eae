"""What a run gives to other programs: completions as files, the result table as LaTeX, and the cells two runs share."""

from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import Any, Literal

from demur.errors import InputError
from demur.runs import Run
from demur.statistics import mcnemar, shared

Format = Literal["csv", "jsonl", "parquet", "latex"]


def exported(run: Run, format: Format) -> str | bytes:
    """Completions with verdicts as CSV, JSONL or Parquet, or the result table as LaTeX (booktabs)."""
    if format == "latex":
        from demur.report import tables
        from demur.report.entries import entries

        summary = run.summary()
        caption = f"Refusals in every cell of {summary['study']['name']}"
        return tables.latex(tables.readable_results(entries(summary)), caption, "tab:results")
    table = run.completions()
    if table.empty:
        raise InputError(f"{str(run.path)!r} holds no completions yet; run its study to have some")
    if format == "csv":
        return str(table.to_csv(index=False))
    if format == "jsonl":
        return str(table.to_json(orient="records", lines=True, force_ascii=False))
    buffer = BytesIO()
    try:
        table.to_parquet(buffer, index=False)
    except ImportError as error:
        raise InputError("writing Parquet needs pyarrow; pip install 'demur[parquet]'") from error
    return buffer.getvalue()


def shared_cells(first: Run, second: Run) -> Iterator[str]:
    """One line a shared cell and judge: both rates and an exact McNemar test over the instructions that both have.

    Raises `InputError` where the runs share no cell.
    """
    sides = [_verdicts(run) for run in (first, second)]
    keys = [key for key in sides[0] if key in sides[1]]
    if not keys:
        raise InputError(f"{str(first.path)!r} and {str(second.path)!r} have no cell in common, so there is nothing to compare")
    yield f"{'first':>6} {'second':>6} {'n':>4}  {'p':>8}  cell"
    for key in keys:
        a, b = shared(sides[0][key], sides[1][key])
        if a:
            p = mcnemar(a, b).p_value
            name = f"{key[0]} ({key[1]})"
            yield f"{100 * sum(a) / len(a):5.1f}% {100 * sum(b) / len(b):5.1f}% {len(a):4}  {p:8.2g}  {name}"


def _verdicts(run: Run) -> Mapping[tuple[str, str], dict[str, bool]]:
    found: dict[tuple[str, str], dict[str, bool]] = {}
    rows: list[dict[str, Any]] = run.completions().to_dict("records")  # type: ignore[assignment]
    for judge in run.judges():
        for row in rows:
            # A run at work, or one that was stopped, may hold completions without a verdict.
            if isinstance(refusal := row.get(f"{judge}_refusal"), bool):
                found.setdefault((row["key"], judge), {})[row["instruction"]] = refusal
    if not found:
        raise InputError(f"{str(run.path)!r} holds no verdicts yet; run its study, or judge what it has with demur report")
    return found
