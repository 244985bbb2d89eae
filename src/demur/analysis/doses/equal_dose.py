"""Two directions at one dose: each against the target's own. Pure functions of typed records."""

from collections.abc import Mapping, Sequence
from typing import Literal

from demur.analysis.cell import JudgedCell, Record
from demur.analysis.doses.coherence_gate import Coherence
from demur.analysis.doses.dose_response import Lengths, both_pass, setting_of_dose
from demur.analysis.manifest import DirectionFacts
from demur.analysis.rates import Groups, Refusals, paired_verdicts
from demur.core.effects.paired_change import paired_change

_SAME = 0.01
"""Two lengths that differ by less than this share of the larger one are the same dose."""


class EqualDose(Record):
    """A direction compared with the target's own direction at one coefficient of one unit.

    Attributes:
        key: the cell with the direction.
        own_key: the cell with the target's own direction.
        unit: the unit of the coefficient.
        coefficient: the coefficient.
        norms: the lengths that are added, first of the direction, then of the target's own; None where not known.
        equal: `norm` if both lengths are the same; `multiple` if only the multiple of each direction's own raw norm is.
        n: the number of instructions that have a verdict in both cells.
        difference: the rate with the direction minus that with the target's own.
        ci95: its 95 % interval.
        p_value: two-sided p value of the difference, not corrected.
        coherent: whether both cells pass the gate; None if it is not known.
    """

    key: str
    own_key: str
    unit: str
    coefficient: float
    norms: tuple[float | None, float | None]
    equal: Literal["norm", "multiple"]
    n: int
    difference: float
    ci95: tuple[float, float]
    p_value: float
    coherent: bool | None = None


def equal_doses(
    cells: Sequence[JudgedCell],
    refusals: Refusals,
    judge: str,
    directions: Sequence[DirectionFacts],
    texts: Sequence[Coherence],
    groups: Groups | None = None,
) -> list[EqualDose]:
    """Each direction against the target's own direction at the same coefficient and setting, null directions left out.

    Args:
        cells: the judged cells of a run.
        refusals: the verdicts from which they were computed.
        judge: the judge whose verdicts count.
        directions: the directions of the run.
        texts: the coherence of edited cells, where it was measured.
        groups: groups of near-duplicate instructions; None if all are independent.

    Returns:
        The comparisons in the order of the cells.
    """
    lengths, text_of = Lengths(directions), {one.key: one for one in texts}
    prompt_of = {one.name: one.prompt for one in directions}
    mine = [cell for cell in cells if cell.judge == judge and cell.edited and not cell.control and cell.coefficient]

    def setting(cell: JudgedCell) -> tuple[object, ...]:
        return (*setting_of_dose(cell), cell.coefficient, cell.pairs_seed)

    own = {setting(cell): cell for cell in mine if _is_own(cell, prompt_of) and not cell.estimator}
    found = []
    for cell in mine:
        other = own.get(setting(cell))
        verdicts = None if other is None else paired_verdicts(refusals, judge, other.key, cell, groups)
        if other is None or other is cell or verdicts is None:
            continue
        change = paired_change(*verdicts)
        norms = (lengths.of(cell)[0], lengths.of(other)[0])
        sides = [text_of[one.key].coherent if one.key in text_of else None for one in (cell, other)]
        found.append(
            EqualDose(
                key=cell.key,
                own_key=other.key,
                unit=cell.unit or "unit",
                coefficient=cell.coefficient or 0.0,
                norms=norms,
                equal="norm" if _same(*norms) or cell.unit != "raw" else "multiple",
                n=change.n,
                difference=change.difference,
                ci95=change.interval(),
                p_value=change.p_value,
                coherent=both_pass(*sides),
            )
        )
    return found


def _is_own(cell: JudgedCell, prompt_of: Mapping[str, str | None]) -> bool:
    return cell.source == cell.target and prompt_of.get(cell.direction or "", cell.prompt) == cell.prompt


def _same(one: float | None, other: float | None) -> bool:
    return one is not None and other is not None and abs(one - other) <= _SAME * max(one, other)
