"""The stored completions of a run as one table."""

from collections.abc import Iterable
from math import nan
from typing import TYPE_CHECKING

from demur.runs.rows import StoredCompletion, StoredVerdict
from demur.runs.stored_records import Results

if TYPE_CHECKING:
    import pandas

CELL_COLUMNS = (
    "key", "target", "prompt", "instructions", "intervention", "direction", "source", "control", "stands_beside", "layer",
    "sites", "layers", "coefficient", "unit", "positions",
)  # fmt: skip
"""The columns of the table that describe the cell of each row."""


def completion_frame(results: Results, completions: Iterable[StoredCompletion]) -> "pandas.DataFrame":
    """One row for each completion, with its cell and every verdict on it.

    Args:
        results: the cells and verdicts of the run.
        completions: the completions.

    Returns:
        The table; it has its columns even without rows.
    """
    import pandas

    rows = list(completions)
    # Column by column: a dictionary for each row would take several times the time and the memory.
    cells = {cell.key: cell.model_dump(mode="json", include=set(CELL_COLUMNS)) for cell in results.cells}
    facts = [cells[row.cell] for row in rows]
    columns: dict[str, list[object]] = {name: [fact[name] for fact in facts] for name in CELL_COLUMNS}
    columns |= {
        "index": [row.position for row in rows],
        "instruction": [row.instruction for row in rows],
        "completion": [row.text for row in rows],
        "token_ids": [list(row.token_ids) for row in rows],
        "n_tokens": [len(row.token_ids) for row in rows],
    }
    given: dict[str, dict[tuple[str, int], StoredVerdict]] = {}
    for verdict in results.verdicts:
        given.setdefault(verdict.judge, {})[verdict.cell, verdict.position] = verdict
    for judge, verdicts in given.items():
        known = [verdicts.get((row.cell, row.position)) for row in rows]
        for field in ("refusal", "label", "evidence"):
            # A missing verdict is missing in the table, and not the text "None".
            columns[f"{judge}_{field}"] = [nan if one is None else getattr(one, field) for one in known]
    return pandas.DataFrame(columns)
