"""The stored completions of a run as one table."""

import json
from collections.abc import Iterable, Mapping, Sequence
from math import nan
from typing import TYPE_CHECKING

from demur.analysis.cell import Cell
from demur.judges.judge import UNPARSED
from demur.runs.labelling.label_records import LabelledSample
from demur.runs.rows import StoredCompletion, StoredVerdict
from demur.runs.stored_records import Results

if TYPE_CHECKING:
    import pandas

CELL_COLUMNS = (
    "key", "target", "prompt", "instructions", "intervention", "direction", "source", "control", "stands_beside", "layer",
    "sites", "layers", "coefficient", "unit", "positions", "settings",
)  # fmt: skip
"""The columns of the table that describe the cell of each row."""


def completion_frame(
    results: Results, completions: Iterable[StoredCompletion], outputs: Mapping[tuple[str, int, str], str] | None = None
) -> "pandas.DataFrame":
    """One row for each completion, with its cell, every verdict on it, and the labels of people.

    Args:
        results: the cells and verdicts of the run.
        completions: the completions.
        outputs: (cell, position, judge) -> what the judge's model answered, for judges that ask one.

    Returns:
        The table; it has its columns even without rows. Where people labelled completions, `labelled_NAME` has the label of each,
        and `label_probability` the chance with which the completion was drawn to be labelled.
    """
    import pandas

    rows = list(completions)
    # Column by column: a dictionary for each row would take several times the time and the memory.
    columns: dict[str, list[object]] = {
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
        # A missing verdict is missing in the table, and not the text "None".
        columns[f"{judge}_refusal"] = [nan if one is None or one.label == UNPARSED else one.refusal for one in known]
        columns[f"{judge}_label"] = [nan if one is None else one.label for one in known]
        columns[f"{judge}_evidence"] = [nan if one is None else one.evidence for one in known]
    answered: dict[str, dict[tuple[str, int], str]] = {}
    for (cell, position, judge), output in (outputs or {}).items():
        if (cell, position) in given.get(judge, {}):
            answered.setdefault(judge, {})[cell, position] = output
    for judge, found in answered.items():
        columns[f"{judge}_output"] = [found.get((row.cell, row.position), nan) for row in rows]
    columns |= _labels(results.people, rows)
    return pandas.concat([_facts_of_cells(results.cells, rows), pandas.DataFrame(columns)], axis="columns")


def _facts_of_cells(cells: Sequence[Cell], rows: Sequence[StoredCompletion]) -> "pandas.DataFrame":
    """The columns that describe the cell of each row: made once a cell and then repeated, which is several times faster."""
    import pandas

    places = {key: place for place, key in enumerate(dict.fromkeys(row.cell for row in rows))}
    dumped = {cell.key: cell.model_dump(mode="json", include=set(CELL_COLUMNS)) for cell in cells if cell.key in places}
    for facts in dumped.values():
        facts["settings"] = json.dumps(facts["settings"], sort_keys=True) if facts["settings"] else None
    once = pandas.DataFrame({name: [dumped[key][name] for key in places] for name in CELL_COLUMNS})
    return once.take([places[row.cell] for row in rows]).reset_index(drop=True)


def _labels(sample: LabelledSample, rows: Sequence[StoredCompletion]) -> dict[str, list[object]]:
    """The labels that people gave, by column. A column has another form than those of judges, whose names people may have."""
    found: dict[str, dict[tuple[str, int], str]] = {}
    for one in sample.labels:
        if one.label is not None:
            found.setdefault(f"labelled_{one.labeller}", {})[one.cell, one.position] = one.label
    columns: dict[str, list[object]] = {
        name: [labels.get((row.cell, row.position), nan) for row in rows] for name, labels in found.items()
    }
    if chances := sample.probabilities():
        columns["label_probability"] = [chances.get((row.cell, row.position), nan) for row in rows]
    return columns
