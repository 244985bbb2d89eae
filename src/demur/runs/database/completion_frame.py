"""The stored completions of a run as one table."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from demur.judges.judge import UNPARSED
from demur.runs.rows import StoredCompletion
from demur.runs.stored_records import Results

if TYPE_CHECKING:
    import pandas

CELL_COLUMNS = (
    "key", "target", "prompt", "instructions", "intervention", "direction", "source", "control", "stands_beside", "layer",
    "sites", "layers", "coefficient", "unit", "positions",
)  # fmt: skip
"""The columns of the table that describe the cell of each row."""

COMPLETION_COLUMNS = ("index", "instruction", "completion", "token_ids", "n_tokens")
"""The columns of the table that describe the completion of each row, without the verdicts."""


def completion_frame(
    results: Results, completions: Iterable[StoredCompletion], outputs: Mapping[tuple[str, int, str], str] | None = None
) -> "pandas.DataFrame":
    """One row for each completion, with its cell and every verdict on it.

    Args:
        results: the cells and verdicts of the run.
        completions: the completions.
        outputs: (cell, position, judge) -> what the judge's model answered, for judges that ask one.

    Returns:
        The table; it has its columns even without rows.
    """
    import pandas

    cells = {cell.key: cell.model_dump(mode="json", include=set(CELL_COLUMNS)) for cell in results.cells}
    verdicts: dict[tuple[str, int], dict[str, bool | str | None]] = {}
    for cell, position, judge, refusal, label, evidence in results.verdicts:
        entry = verdicts.setdefault((cell, position), {})
        called = None if label == UNPARSED else refusal
        entry.update({f"{judge}_refusal": called, f"{judge}_label": label, f"{judge}_evidence": evidence})
    for (cell, position, judge), output in (outputs or {}).items():
        if f"{judge}_label" in (entry := verdicts.get((cell, position), {})):
            entry[f"{judge}_output"] = output
    rows = [
        {
            **{name: cells[row.cell][name] for name in CELL_COLUMNS},
            "index": row.position,
            "instruction": row.instruction,
            "completion": row.text,
            "token_ids": list(row.token_ids),
            "n_tokens": len(row.token_ids),
            **verdicts.get((row.cell, row.position), {}),
        }
        for row in completions
    ]
    # Without rows pandas would give a table without columns.
    return pandas.DataFrame(rows) if rows else pandas.DataFrame(columns=[*CELL_COLUMNS, *COMPLETION_COLUMNS])
