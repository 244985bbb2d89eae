"""Whether a checkpoint refuses harmful instructions more often than harmless ones, without an edit."""

from dataclasses import dataclass

from demur.analysis.cell import JudgedCell
from demur.analysis.rates import Groups, Refusals, paired_verdicts
from demur.core.effects.detectable_change import least_attainable_p
from demur.core.effects.independent_rates import IndependentDifference, independent_difference
from demur.core.effects.paired_change import PairedChange, paired_change
from demur.core.statistics import LEVEL


@dataclass(frozen=True)
class HarmContrast:
    """One arm on harmful against harmless instructions.

    Attributes:
        harmful: the arm on harmful instructions.
        harmless: the arm on harmless instructions.
        change: the rate on harmful instructions minus that on harmless ones: paired where each harmless instruction is the twin
            of a harmful one, and otherwise of independent instructions.
        could_be_shown: whether any result could have shown that harmful instructions are refused more often.
    """

    harmful: JudgedCell
    harmless: JudgedCell
    change: PairedChange | IndependentDifference
    could_be_shown: bool


def harm_contrast(
    harmful: JudgedCell, harmless: JudgedCell, refusals: Refusals, *, groups: Groups | None = None, matched: bool = False
) -> HarmContrast:
    """Compares the two rates of one arm.

    Args:
        harmful: the arm on harmful instructions, without an edit.
        harmless: the same arm on harmless instructions.
        refusals: the verdicts from which both were computed.
        groups: groups of near-duplicate instructions; None if all are independent.
        matched: whether each harmless instruction is the twin of the harmful one at the same position.

    Returns:
        The comparison. Without twins, or where no twin has both verdicts, the instructions count as independent.
    """
    paired = paired_verdicts(refusals, harmful.judge, harmless.key, harmful, groups) if matched else None
    if paired is not None:
        least = least_attainable_p(paired.first, 1, paired.groups)
        return HarmContrast(harmful, harmless, paired_change(*paired), least < LEVEL)
    sides = [refusals[cell.key, cell.judge] for cell in (harmless, harmful)]
    grouped = None
    if groups is not None:
        of_set = [groups[cell.instructions] for cell in (harmless, harmful)]
        grouped = ([of_set[0][place] for place in sides[0]], [of_set[1][place] for place in sides[1]])
    change = independent_difference(list(sides[0].values()), list(sides[1].values()), grouped)
    return HarmContrast(harmful, harmless, change, change.least_p < LEVEL)
