"""Corrects the p values of hypotheses and of single effects for being several.

Holm's correction (1979) is made within each family. A family consists of hypotheses, and of the effects that belong to none of
them. A member with several trials is supported if one of them is, so its smallest p value counts, times their number
(Bonferroni).
A member that no result could have shown is left out: it cannot be shown by mistake, so it needs no correction (Tarone 1990, "A
modified Bonferroni method for discrete data", Biometrics 46).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from demur.analysis.hypotheses.hypothesis_trials import Trial
from demur.core.statistics import holm


@dataclass(frozen=True)
class Corrected:
    """The corrected p values of one member of a family.

    Attributes:
        p: of "there is no such effect in any trial".
        p_opposite: of a change with the other sign in all trials.
        p_no_effect: of "the change is delta or more in some trial".
        p_trials: of each trial alone; the smallest one is `p`.
        family: the number of members that the correction is for.
    """

    p: float
    p_opposite: float
    p_no_effect: float
    p_trials: tuple[float, ...]
    family: int


def corrected(members: Sequence[Sequence[Trial]]) -> list[Corrected]:
    """Corrects the p values of one family.

    Args:
        members: the trials of each member, at least one for each.

    Returns:
        The corrected p values of the members, in the order given.
    """
    tested = [number for number, trials in enumerate(members) if any(trial.could_be_shown for trial in trials)]
    alone = [_first_of(trials) for trials in members]
    adjusted = dict(zip(tested, holm([alone[number] for number in tested]), strict=True))
    # What contradicts a hypothesis may also be found where the effect itself could not be.
    opposite = holm([max(trial.p_opposite for trial in trials) for trials in members])
    absent = holm([max(trial.p_no_effect for trial in trials) for trials in members])
    steps = {number: len(tested) - rank for rank, number in enumerate(sorted(tested, key=lambda number: alone[number]))}
    found = []
    for number, trials in enumerate(members):
        p = adjusted.get(number, alone[number])
        times = steps.get(number, 1) * len(trials)
        p_trials = tuple(max(p, min(1.0, times * trial.p_alone)) for trial in trials)
        found.append(Corrected(p, opposite[number], absent[number], p_trials, len(tested)))
    return found


def _first_of(trials: Sequence[Trial]) -> float:
    return min(1.0, len(trials) * min(trial.p_alone for trial in trials))
