"""The stored completions of a run as one table."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from demur.runs.labelling.label_records import LabelledSample
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


def completion_frame(results: Results, completions: Iterable[StoredCompletion]) -> "pandas.DataFrame":
    """One row for each completion, with its cell, every verdict on it, and the labels of people.

    Args:
        results: the cells and verdicts of the run.
        completions: the completions.

    Returns:
        The table; it has its columns even without rows. Where people labelled completions, `labelled_NAME` has the label of each,
        and `label_probability` the chance with which the completion was drawn to be labelled.
    """
    import pandas

    cells = {cell.key: cell.model_dump(mode="json", include=set(CELL_COLUMNS)) for cell in results.cells}
    verdicts: dict[tuple[str, int], dict[str, bool | str]] = {}
    for cell, position, judge, refusal, label, evidence in results.verdicts:
        entry = verdicts.setdefault((cell, position), {})
        entry.update({f"{judge}_refusal": refusal, f"{judge}_label": label, f"{judge}_evidence": evidence})
    people, chances = _labels(results.people), results.people.probabilities()
    rows = [
        {
            **{name: cells[row.cell][name] for name in CELL_COLUMNS},
            "index": row.position,
            "instruction": row.instruction,
            "completion": row.text,
            "token_ids": list(row.token_ids),
            "n_tokens": len(row.token_ids),
            **verdicts.get((row.cell, row.position), {}),
            **people.get((row.cell, row.position), {}),
            **({"label_probability": chances.get((row.cell, row.position))} if chances else {}),
        }
        for row in completions
    ]
    # Without rows pandas would give a table without columns.
    return pandas.DataFrame(rows) if rows else pandas.DataFrame(columns=[*CELL_COLUMNS, *COMPLETION_COLUMNS])


def _labels(sample: LabelledSample) -> dict[tuple[str, int], dict[str, str]]:
    """The labels of each completion by column. A column has another form than those of judges, whose names people may have."""
    found: dict[tuple[str, int], dict[str, str]] = {}
    for one in sample.labels:
        if one.label is not None:
            found.setdefault((one.cell, one.position), {})[f"labelled_{one.labeller}"] = one.label
    return found
