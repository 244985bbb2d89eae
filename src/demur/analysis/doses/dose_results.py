"""Everything that a summary says of doses, computed together."""

from collections.abc import Mapping, Sequence

from demur.analysis.cell import JudgedCell, Record
from demur.analysis.doses.coherence_gate import Coherence, MeasuredText, coherence
from demur.analysis.doses.dose_response import DoseCurve, Probabilities, dose_curves
from demur.analysis.doses.equal_dose import EqualDose, equal_doses
from demur.analysis.manifest import DirectionFacts
from demur.analysis.rates import Groups, Refusals


class DoseResults(Record):
    """The results of doses.

    Attributes:
        coherence: whether the completions of each edited cell are still text; empty for a run that did not measure it.
        curves: one entry for each direction that was tried with several doses in one target.
        equal: each direction against the target's own direction at the same coefficient.
    """

    coherence: tuple[Coherence, ...] = ()
    curves: tuple[DoseCurve, ...] = ()
    equal: tuple[EqualDose, ...] = ()


def dose_results(
    cells: Sequence[JudgedCell],
    refusals: Refusals,
    judge: str,
    directions: Sequence[DirectionFacts],
    texts: Mapping[str, MeasuredText],
    probabilities: Probabilities,
    groups: Groups | None = None,
) -> DoseResults:
    """The results of doses of a run.

    Args:
        cells: the judged cells.
        refusals: the verdicts from which they were computed.
        judge: the judge whose verdicts count.
        directions: the directions of the run.
        texts: the measurement `coherence`, by cell key.
        probabilities: the probability of a refusal, by cell and instruction, where it was measured.
        groups: groups of near-duplicate instructions; None if all are independent.
    """
    mine = [cell for cell in cells if cell.judge == judge]
    found = coherence(mine, texts, refusals, judge, groups)
    return DoseResults(
        coherence=tuple(found),
        curves=tuple(dose_curves(mine, judge, directions, probabilities, found)),
        equal=tuple(equal_doses(mine, refusals, judge, directions, found, groups)),
    )
