"""From stored verdicts to the numbers that are shown: rates with intervals, and paired comparisons with the target left alone.

Pure functions over what the store holds.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from demur.core.statistics import holm, mcnemar, shared, wilson

Refusals = Mapping[tuple[str, str], Mapping[int, bool]]
"""(cell key, judge) -> instruction index -> refusal."""


def cell_rows(cells: Sequence[Mapping[str, Any]], refusals: Refusals, judges: Sequence[str]) -> list[dict[str, Any]]:
    """One row a cell and judge: what the cell is, n, refusals, rate, Wilson interval. Cells without completions are left out."""
    rows = []
    for cell in cells:
        for judge in judges:
            found = refusals.get((cell["key"], judge))
            if found:
                n, count = len(found), sum(found.values())
                rate = {"n": n, "refusals": count, "rate": count / n, "ci95": list(wilson(count, n))}
                rows.append({**cell, "judge": judge, **rate})
    return rows


def comparisons(cells: Sequence[Mapping[str, Any]], refusals: Refusals, judges: Sequence[str]) -> list[dict[str, Any]]:
    """Every edited cell against its own target without an edit, on the same instructions: exact McNemar, Holm within a judge."""
    baseline = {place(cell): cell["key"] for cell in cells if cell["intervention"] == "none"}
    rows: list[dict[str, Any]] = []
    for judge in judges:
        family = []
        for cell in cells:
            before, after = refusals.get((baseline[place(cell)], judge), {}), refusals.get((cell["key"], judge), {})
            first, second = shared(before, after)
            if cell["intervention"] == "none" or not first:
                continue
            paired = mcnemar(first, second)
            family.append(
                {
                    "key": cell["key"],
                    "judge": judge,
                    "n": paired.n,
                    "baseline_rate": sum(first) / paired.n,
                    "rate": sum(second) / paired.n,
                    "difference": paired.difference,
                    "gained": paired.gained,
                    "lost": paired.lost,
                    "p_value": paired.p_value,
                }
            )
        adjusted = holm([row["p_value"] for row in family])
        rows += [{**row, "p_holm": p} for row, p in zip(family, adjusted, strict=True)]
    return rows


def place(cell: Mapping[str, Any]) -> tuple[str, str, str]:
    """Target, prompt and instructions: what a cell has in common with the baseline that it is compared with."""
    return cell["target"], cell["prompt"], cell["instructions"]
