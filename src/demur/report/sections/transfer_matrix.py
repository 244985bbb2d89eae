"""The transfer matrix: rates by the checkpoint that a direction came from and the checkpoint that it was applied to.

There is one matrix for each kind of edit, coefficient and instruction set. Its first row is the baseline of each target. Its last
rows are the controls.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from demur.analysis.summary import Summary
from demur.report.cell_labels import BASELINE
from demur.report.cell_view import Entry, instruction_sets, targets_of
from demur.report.complete_summary import completed
from demur.report.sections.control_pools import row_labels


@dataclass(frozen=True)
class Matrix:
    """One transfer matrix.

    Attributes:
        name: the name of its files.
        done: what was done to the direction, such as `added`.
        dose: the coefficient in words, empty if there is none.
        instructions: the name of the instruction set.
        rows: labels of the directions' sources.
        columns: labels of the targets.
        controls: the rows that are controls.
        cells: the entry of each row and column; a pair that was not measured is missing.
        labels: for each row, the label of the row that a reader sees. Many controls of one kind share one.
    """

    name: str
    done: str
    dose: str
    instructions: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    controls: frozenset[str]
    cells: Mapping[tuple[str, str], Entry]
    labels: Mapping[str, str]

    def pools(self) -> dict[tuple[str, str], list[Entry]]:
        """The entries of each row that a reader sees, and of each column."""
        found: dict[tuple[str, str], list[Entry]] = {}
        for row in self.rows:
            for column in self.columns:
                if (entry := self.cells.get((row, column))) is not None:
                    found.setdefault((self.labels[row], column), []).append(entry)
        return found

    @property
    def title(self) -> str:
        """What was done and on which instructions."""
        dose = f", {self.dose}" if self.dose else ""
        return f"Direction {self.done}{dose}: {self.instructions} instructions"


def matrices(summary: Summary, found: Sequence[Entry]) -> list[Matrix]:
    """All transfer matrices of one judge's entries, by kind of edit in the summary's order, with harmful before harmless."""
    edits = [entry for entry in found if entry.edited and entry.cell.direction is not None]
    made = []
    for kind in dict.fromkeys(words.kind for words in completed(summary).edits.values()):
        chosen = [entry for entry in edits if entry.kind == kind]
        doses = {entry.dose: entry.cell for entry in sorted(chosen, key=lambda e: e.cell.coefficient or 0.0)}
        for dose, cell in doses.items():
            strength = "-".join(("", f"{cell.coefficient:g}", *filter(None, (cell.unit,)))) if dose else ""
            strength = strength.replace("--", "-minus-")
            for instructions in instruction_sets(chosen):
                name = re.sub(r"[^\w.-]+", "-", f"transfer-{kind}{strength}-{instructions}")
                matrix = _matrix(found, chosen, dose, instructions, name)
                made += [matrix] if matrix else []
    return made


def _matrix(found: Sequence[Entry], chosen: Sequence[Entry], dose: str, instructions: str, name: str) -> Matrix | None:
    inside = [entry for entry in chosen if entry.dose == dose and entry.instructions == instructions]
    if not inside:
        return None
    columns = targets_of(inside)
    baselines = [e for e in found if not e.edited and e.instructions == instructions and e.target in columns]
    ordered = list(dict.fromkeys((entry.control, entry.direction) for entry in inside))
    rows = [direction for _, direction in sorted(ordered, key=lambda pair: pair[0])]
    names = ((BASELINE,) if baselines else ()) + tuple(rows)
    shared = row_labels(inside, lambda entry: entry.direction)
    return Matrix(
        name,
        inside[0].done,
        dose,
        instructions,
        names,
        tuple(columns),
        frozenset(direction for control, direction in ordered if control),
        {(entry.direction, entry.target): entry for entry in (*baselines, *inside)},
        {BASELINE: BASELINE} | {entry.direction: shared[entry.key] for entry in inside},
    )
