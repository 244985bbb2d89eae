"""Decides whether an edit is shown to have an effect.

The change that the edit makes is tested against chance, and the edit against null directions of each kind at the same setting
and dose. It must pass all of these tests, and the largest of their p values counts. Without five null directions of one kind, no
effect is shown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Literal, cast

from demur.analysis.cell import Cell, Comparison, JudgedCell, Null, Reason
from demur.analysis.rates import Groups, PairedVerdicts, Refusals, paired_verdicts
from demur.core import number_format
from demur.core.effects.detectable_change import least_attainable_p, least_detectable_change
from demur.core.effects.null_distribution import FEWEST, Outcome, against_null
from demur.core.effects.paired_change import DELTA, paired_change
from demur.core.statistics import LEVEL, holm

_SETTING = (
    "target", "prompt", "instructions", "intervention", "layer", "pairs_seed", "layers", "sites", "coefficient", "unit",
    "positions", "settings", "dimension",
)  # fmt: skip
"""The attributes that are equal in two cells that differ only in their direction."""

ORTHOGONAL = "-orthogonal"
"""The end of the name of a kind of control that is orthogonal to the direction that it stands beside."""

Probabilities = Mapping[str, Mapping[int, float]]
"""Cell key -> position of the instruction -> the probability that a completion is a refusal."""


@dataclass(frozen=True)
class _Reach:
    """What the verdicts of one cell could show. All copies of a test share it, so that it is computed once.

    Attributes:
        verdicts: the verdicts without and with the edit, on the instructions that both have.
        sense: the sign of the expected change.
    """

    verdicts: PairedVerdicts
    sense: Literal[-1, 1]

    @cached_property
    def p_no_effect(self) -> float:
        """P value of "the change is smaller than delta"."""
        return paired_change(*self.verdicts).p_no_effect()

    @cached_property
    def least_p(self) -> float:
        """The smallest p value that the change could have had."""
        return least_attainable_p(self.verdicts.first, self.sense, self.verdicts.groups)

    @cached_property
    def least_p_ungrouped(self) -> float:
        """The same if all instructions were independent."""
        return least_attainable_p(self.verdicts.first, self.sense)

    @cached_property
    def least_detectable(self) -> float | None:
        """The smallest true change that as many instructions show with a chance of 80 %; None if there is none."""
        return least_detectable_change(self.verdicts.first, self.verdicts.second, self.sense, self.verdicts.groups)


@dataclass(frozen=True)
class EditTest:
    """The test of one edited cell in which a change is expected.

    Attributes:
        cell: the edited cell.
        baseline: the same target without an edit.
        comparison: the comparison of these two on the same instructions.
        nulls: the cells of null directions at the same setting and dose.
        against: the edit against the null directions of each kind.
        other_doses: whether null directions of another norm were tested at this setting.
        reach: what the verdicts of `baseline` and `cell` could show.
        p: the claim's p value after Holm's correction within its family: the larger of the p values of the change and of the edit
            against null directions. 1 for a change against the expected sense.
        claims: the number of claims in the family.
        broken: why the text of the cell is no text any more; empty if it is, or if that was not measured.
    """

    cell: JudgedCell
    baseline: JudgedCell
    comparison: Comparison
    nulls: tuple[Cell, ...]
    against: tuple[Null, ...]
    other_doses: bool
    reach: _Reach
    p: float = 1.0
    claims: int = 1
    broken: str = ""

    @property
    def p_change(self) -> float:
        """The p value of the change after Holm's correction. A cell in which a change is expected is in a family of tests."""
        assert self.comparison.p_holm is not None
        return self.comparison.p_holm

    @property
    def shown(self) -> bool:
        """Whether the data show that the edit has the expected effect."""
        return self.p < LEVEL and not self.broken_loss

    @property
    def broken_loss(self) -> bool:
        """Whether refusals are expected to be lost and the text is broken, which shows no loss of refusals."""
        return bool(self.broken) and self.cell.expected < 0

    @property
    def contradicted(self) -> bool:
        """Whether a change of the opposite sign is significant after Holm's correction."""
        return self.comparison.difference * self.cell.expected < 0 and self.p_change < LEVEL

    @property
    def could_be_shown(self) -> bool:
        """Whether any result could have shown the effect: enough verdicts can change, and there are enough null directions."""
        return self.least_p < LEVEL and any(null.p is not None for null in self.against)

    @property
    def p_alone(self) -> float:
        """The larger of the p values of the change and of the edit against null directions, without any correction."""
        expected = self.comparison.difference * self.cell.expected > 0
        return max(self.comparison.p_value, self.p_null) if expected else 1.0

    @cached_property
    def deciding(self) -> Null | None:
        """The null directions that decide: those of the kind with the largest p value. None if there are none."""
        enough = [null for null in self.against if null.p is not None]
        too_few = [null for null in self.against if null.p is None and (null.place or not enough)]
        return max((*enough, *too_few), key=_p_of, default=None)

    @property
    def p_null(self) -> float:
        """The p value against null directions. With fewer than five it is that of the rank, which is never significant."""
        return 1.0 if self.deciding is None else _p_of(self.deciding)

    @property
    def p_no_effect(self) -> float:
        """P value of "the change is smaller than delta"."""
        return self.reach.p_no_effect

    @property
    def least_p(self) -> float:
        """The smallest p value that the change could have had."""
        return self.reach.least_p

    @property
    def least_detectable(self) -> float | None:
        """The smallest true change that as many instructions show with a chance of 80 %; None if there is none."""
        return self.reach.least_detectable

    @cached_property
    def reason(self) -> Reason:
        """Why the effect is not shown; empty if it is shown or contradicted."""
        if self.shown or self.contradicted:
            return ""
        if self.broken_loss and self.p_change < LEVEL:
            return "broken text"
        if self.p_change >= LEVEL:
            if self.least_p >= LEVEL:
                return "could not be shown"
            return "no effect beyond delta" if self.p_no_effect < LEVEL else "inconclusive"
        if self.deciding is None or (self.deciding.p is None and not self.deciding.place):
            return "could not be shown"
        return "inside the null distribution" if self.p_null >= LEVEL else "inconclusive"

    @cached_property
    def because(self) -> str:
        """The reason in words; empty if there is none."""
        if not self.reason:
            return ""
        if self.reason == "broken text":
            return self.broken
        if self.p_change < LEVEL:
            return self._because_of_nulls()
        delta = f"{100 * DELTA:.0f} points"
        if self.reason == "could not be shown" and self.reach.least_p_ungrouped < LEVEL:
            groups = f"{self.comparison.groups} group{'' if self.comparison.groups == 1 else 's'}"
            return f"it could not be shown, because the instructions are only {groups} of near-duplicates"
        if self.reason == "could not be shown":
            before = number_format.percent(self.comparison.baseline_rate, self.comparison.n)
            return f"it could not be shown, because the rate is {before} without the edit, and too few verdicts can change"
        if self.reason == "no effect beyond delta":
            return f"the change is smaller than {delta} ({number_format.p_in_words(self.p_no_effect)})"
        least = self.least_detectable
        if least is None:
            return "this is inconclusive: with so few instructions, no change is found with a chance of 80 %"
        found = number_format.points(least, number_format.decimals(self.comparison.n)).removeprefix("+")
        return f"this is inconclusive: so few instructions show a change of {found} points with a chance of 80 %"

    def _because_of_nulls(self) -> str:
        null = self.deciding
        same = " of the same norm" if self.other_doses else ""
        if null is None:
            return f"no null direction{same} was tested at this setting"
        if self.reason == "could not be shown":
            there = f"is only 1 {null.kind} direction" if null.n == 1 else f"are only {null.n} {null.kind} directions"
            return f"there {there}{same}, and {FEWEST} are needed"
        if self.reason == "inside the null distribution":
            how = f"{null.place} of {null.n} do as much" if null.p is None else number_format.p_in_words(null.p)
            return f"the effect is inside the null distribution of {null.kind} directions ({how})"
        return f"it is not significant after Holm's correction for {self.claims} claims ({number_format.p_in_words(self.p)})"


def _p_of(null: Null) -> float:
    return null.p if null.p is not None else cast(float, null.p_rank)


def edit_tests(
    cells: Sequence[JudgedCell],
    compared: Sequence[Comparison],
    refusals: Refusals,
    judge: str,
    groups: Groups | None = None,
    probabilities: Probabilities | None = None,
    null_cells: Sequence[Cell] = (),
    broken: Mapping[str, str] | None = None,
) -> list[EditTest]:
    """Tests each edit on the instructions on which a change is expected.

    The kind of edit defines the expected change (`Cell.expected`). Cells of null directions are not tested themselves. The change
    is always one of verdicts. An edit is compared with null directions of a kind by their probabilities of a refusal, if these
    are known of the edit and of at least as many null directions as have verdicts.

    Args:
        cells: the judged cells of a run.
        compared: their comparisons with the unedited targets.
        refusals: the verdicts from which both were computed.
        judge: the judge whose verdicts count.
        groups: groups of near-duplicate instructions; None if all are independent.
        probabilities: the probability of a refusal, by cell and instruction, where it was measured.
        null_cells: cells of null directions that have probabilities but no verdicts.
        broken: why the text of a cell is broken, by cell key (`coherence_gate.broken`); None if that was not measured.

    Returns:
        One test for each cell that has a comparison and an expected change, in the order of the cells.
    """
    mine = [cell for cell in cells if cell.judge == judge]
    by_key = {row.key: row for row in compared if row.judge == judge}
    baselines = {cell.place: cell for cell in mine if not cell.edited}
    controls: dict[object, list[Cell]] = {}
    for control in (*(cell for cell in mine if cell.control), *null_cells):
        controls.setdefault((control.place, control.intervention), []).append(control)
    found = []
    for cell in mine:
        row = by_key.get(cell.key)
        if row is None or cell.control or not cell.expected:
            continue
        there = [other for other in controls.get((cell.place, cell.intervention), ()) if same_setting(other, cell)]
        nulls = tuple(null for null in there if _counts_for(null, cell))
        verdicts = paired_verdicts(refusals, judge, baselines[cell.place].key, cell, groups)
        if verdicts is not None:
            found.append(
                EditTest(
                    cell=cell,
                    baseline=baselines[cell.place],
                    comparison=row,
                    nulls=nulls,
                    against=_against(cell, nulls, refusals, probabilities or {}, groups),
                    other_doses=len(there) > len(nulls),
                    reach=_Reach(verdicts, _sense(cell)),
                    broken=(broken or {}).get(cell.key, ""),
                )
            )
    return _corrected(found)


def _corrected(tests: Sequence[EditTest]) -> list[EditTest]:
    """The tests with the p values of their claims, corrected within each family."""
    claims: dict[str, list[int]] = {}
    for place, test in enumerate(tests):
        claims.setdefault(test.comparison.family, []).append(place)
    found = list(tests)
    for places in claims.values():
        for place, p in zip(places, holm([tests[place].p_alone for place in places]), strict=True):
            found[place] = replace(tests[place], p=p, claims=len(places))
    return found


def same_setting(one: Cell, other: Cell) -> bool:
    """Whether two cells differ only in their direction."""
    return all(getattr(one, key) == getattr(other, key) for key in _SETTING)


def _counts_for(null: Cell, cell: Cell) -> bool:
    """Whether a null direction at the same setting has the same dose, and is a null for this very direction."""
    own = null.stands_beside in (cell.direction, cell.source)
    # With the unit `raw`, the dose depends on the norm. A null direction has the norm of the direction that it was made for.
    # One that is orthogonal to a direction is so to no other.
    return own or (cell.unit != "raw" and not null.control_kind.endswith(ORTHOGONAL))


def _against(
    cell: JudgedCell, nulls: Sequence[Cell], refusals: Refusals, probabilities: Probabilities, groups: Groups | None
) -> tuple[Null, ...]:
    """The edit against the null directions of each kind, on the instructions on which the outcome is known of all of them."""
    found = []
    group_of = None if groups is None else groups[cell.instructions]
    for kind in dict.fromkeys(null.control_kind for null in nulls):
        keys = [null.key for null in nulls if null.control_kind == kind]
        judged = [key for key in keys if (key, cell.judge) in refusals]
        measured = [key for key in keys if key in probabilities] if cell.key in probabilities else []
        outcomes: list[Mapping[int, float]] = [refusals[key, cell.judge] for key in (cell.key, *judged)]
        outcome: Outcome = "verdict"
        if measured and len(measured) >= len(judged):
            outcomes, outcome = [probabilities[key] for key in (cell.key, *measured)], "probability"
        shared = set(outcomes[0]).intersection(*outcomes[1:])
        common = [position for position in outcomes[0] if position in shared]
        if len(outcomes) > 1 and common:
            edited, *null = ([each[position] for position in common] for each in outcomes)
            grouped = None if group_of is None else [group_of[position] for position in common]
            test = against_null(edited, null, _sense(cell), outcome, grouped)
            found.append(Null(kind=kind, outcome=outcome, value=sum(edited) / len(edited), **asdict(test)))
    return tuple(found)


def _sense(cell: Cell) -> Literal[-1, 1]:
    return -1 if cell.expected < 0 else 1
