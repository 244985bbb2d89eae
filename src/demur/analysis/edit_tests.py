"""Decides whether an edit is shown to have an effect.

The change that the edit makes is tested against chance and against null directions at the same setting. The edit must pass both
tests. Without a null direction of the same dose, no effect is shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from demur.analysis.cell import Cell, Comparison, JudgedCell, Null
from demur.analysis.rates import Refusals
from demur.core.statistics import LEVEL, mcnemar, shared

_SETTING = (
    "target", "prompt", "instructions", "intervention", "layer", "pairs_seed", "layers", "sites", "coefficient", "unit",
    "positions", "settings",
)  # fmt: skip
"""The attributes that are equal in two cells that differ only in their direction."""


@dataclass(frozen=True)
class EditTest:
    """The test of one edited cell in which a change is expected.

    Attributes:
        cell: the edited cell.
        baseline: the same target without an edit.
        comparison: the comparison of these two on the same instructions.
        nulls: the cells of null directions at the same setting.
        null: how many `nulls` were compared with the baseline, and how many of them changed the rate at least as much as the
            edit, with the expected sign; None if there are none.
        holds: whether the change has the expected sign and is significant after Holm's correction.
        beats_nulls: whether the rate also differs significantly, with the expected sign, from the rate under each null direction.
        has_null_of_its_dose: whether at least one of these null directions was given the same dose.
    """

    cell: JudgedCell
    baseline: JudgedCell
    comparison: Comparison
    nulls: tuple[JudgedCell, ...]
    null: Null | None
    holds: bool
    beats_nulls: bool
    has_null_of_its_dose: bool

    @property
    def shown(self) -> bool:
        """Whether the data show that the edit has the expected effect."""
        return self.holds and self.beats_nulls and self.has_null_of_its_dose

    @property
    def contradicted(self) -> bool:
        """Whether a change of the opposite sign is significant after Holm's correction."""
        return self.comparison.difference * self.cell.expected < 0 and self.comparison.p_holm < LEVEL

    @property
    def doubt(self) -> str:
        """Why a significant change does not count as shown; empty if it counts, or if it is not significant."""
        if not self.holds or self.shown:
            return ""
        if not self.beats_nulls:
            return "the change is not shown to be larger than with a null direction"
        kind = "null direction of the same norm" if self.nulls else "null direction"
        return f"no {kind} was tested at this setting"


def edit_tests(cells: Sequence[JudgedCell], compared: Sequence[Comparison], refusals: Refusals, judge: str) -> list[EditTest]:
    """Tests each edit on the instructions on which a change is expected.

    The kind of edit defines the expected change (`Cell.expected`). Cells of null directions are not tested themselves.

    Args:
        cells: the judged cells of a run.
        compared: their comparisons with the unedited targets.
        refusals: the verdicts from which both were computed.
        judge: the judge whose verdicts count.

    Returns:
        One test for each cell that has a comparison and an expected change, in the order of the cells.
    """
    mine = [cell for cell in cells if cell.judge == judge]
    by_key = {row.key: row for row in compared if row.judge == judge}
    baselines = {cell.place: cell for cell in mine if not cell.edited}
    found = []
    for cell in mine:
        row = by_key.get(cell.key)
        if row is None or cell.control or not cell.expected:
            continue
        nulls = tuple(other for other in mine if other.control and same_setting(other, cell))
        against = [_against(refusals, judge, null.key, cell.key) for null in nulls]
        found.append(
            EditTest(
                cell=cell,
                baseline=baselines[cell.place],
                comparison=row,
                nulls=nulls,
                null=_null(cell, row, [(null, by_key.get(null.key)) for null in nulls]),
                holds=row.difference * cell.expected > 0 and row.p_holm < LEVEL,
                beats_nulls=all(difference * cell.expected > 0 and p < LEVEL for difference, p in against),
                has_null_of_its_dose=any(_same_dose(null, cell) for null in nulls),
            )
        )
    return found


def same_setting(one: Cell, other: Cell) -> bool:
    """Whether two cells differ only in their direction."""
    return all(getattr(one, key) == getattr(other, key) for key in _SETTING)


def _same_dose(null: Cell, cell: Cell) -> bool:
    # With the unit `raw`, the dose depends on the norm. A null direction has the norm of the direction that it was made for.
    return cell.unit != "raw" or null.stands_beside in (cell.direction, cell.source)


def _against(refusals: Refusals, judge: str, null: str, cell: str) -> tuple[float, float]:
    """The change from a null direction to the edit on the instructions that both have, and its p value."""
    paired = mcnemar(*shared(refusals[null, judge], refusals[cell, judge]))
    return paired.difference, paired.p_value


def _null(cell: JudgedCell, row: Comparison, nulls: Sequence[tuple[JudgedCell, Comparison | None]]) -> Null | None:
    compared = [(null, found) for null, found in nulls if found is not None]
    if not compared:
        return None
    as_much = sum(found.difference * cell.expected >= row.difference * cell.expected for _, found in compared)
    kinds = dict.fromkeys(null.control_kind for null, _ in compared)
    return Null(kind=", ".join(kinds), n=len(compared), place=as_much)
