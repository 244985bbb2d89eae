"""The transfer matrix: where a direction came from against which checkpoint it was moved to.

One matrix an intervention, coefficient and instruction set; its first row is the targets' own baseline, its last the controls.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from demur.report.cell_view import BASELINE, INTERVENTIONS, Entry, instruction_sets, targets_of


@dataclass(frozen=True)
class Matrix:
    """`cells[row, column]` is the entry of one source (row) and target (column); a pair that was not measured is missing."""

    name: str
    intervention: str
    dose: str
    instructions: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    controls: frozenset[str]
    cells: Mapping[tuple[str, str], Entry]

    @property
    def title(self) -> str:
        """What was done and on which instructions."""
        dose = f", {self.dose}" if self.dose else ""
        return f"Direction {INTERVENTIONS[self.intervention]}{dose}: {self.instructions} instructions"


def matrices(found: Sequence[Entry]) -> list[Matrix]:
    """All transfer matrices of one judge's entries, additions before ablations, harmful before harmless."""
    edits = [entry for entry in found if entry.intervention != "none"]
    made = []
    for intervention in (name for name in INTERVENTIONS if name != "none"):
        chosen = [entry for entry in edits if entry.intervention == intervention]
        doses = {entry.dose: entry.cell for entry in sorted(chosen, key=lambda e: e.cell["coefficient"] or 0.0)}
        for dose, cell in doses.items():
            strength = f"-{cell['coefficient']:g}-{cell['unit']}".replace("--", "-minus-") if dose else ""
            for instructions in instruction_sets(chosen):
                name = re.sub(r"[^\w.-]+", "-", f"transfer-{intervention}{strength}-{instructions}")
                matrix = _matrix(found, chosen, dose, instructions, name)
                made += [matrix] if matrix else []
    return made


def _matrix(found: Sequence[Entry], chosen: Sequence[Entry], dose: str, instructions: str, name: str) -> Matrix | None:
    inside = [entry for entry in chosen if entry.dose == dose and entry.instructions == instructions]
    if not inside:
        return None
    columns = targets_of(inside)
    baselines = [e for e in found if e.intervention == "none" and e.instructions == instructions and e.target in columns]
    ordered = list(dict.fromkeys((entry.control, entry.direction) for entry in inside))
    rows = [direction for _, direction in sorted(ordered, key=lambda pair: pair[0])]
    return Matrix(
        name,
        inside[0].intervention,
        dose,
        instructions,
        ((BASELINE,) if baselines else ()) + tuple(rows),
        tuple(columns),
        frozenset(direction for control, direction in ordered if control),
        {(entry.direction, entry.target): entry for entry in (*baselines, *inside)},
    )
