"""Computes the numbers of a report from stored verdicts: rates with intervals, and comparisons with the unedited target.

Pure functions of typed records.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from demur.analysis.cell import Cell, Comparison, Family, JudgedCell
from demur.analysis.claim_families import DeclaredClaim, families
from demur.core.effects.paired_change import PairedChange, paired_change
from demur.core.statistics import holm, wilson

Refusals = Mapping[tuple[str, str], Mapping[int, bool]]
"""(cell key, judge) -> position of the instruction -> whether the judge calls the completion a refusal."""

Groups = Mapping[str, Sequence[int]]
"""Instruction set -> the group of each of its instructions, by position. Near-duplicates are in one group."""

Labels = Mapping[tuple[str, str], Mapping[str, int]]
"""(cell key, judge) -> label -> how many completions got it."""

Failures = Mapping[tuple[str, str], int]
"""(cell key, judge) -> the number of completions on which the judge failed."""


def judged_cells(
    cells: Sequence[Cell],
    refusals: Refusals,
    judges: Sequence[str],
    labels: Labels | None = None,
    failures: Failures | None = None,
) -> list[JudgedCell]:
    """Each cell under each judge, with its rate and 95 % Wilson interval.

    Args:
        cells: the cells in the order of the study.
        refusals: the verdicts.
        judges: the judges in the order of the study.
        labels: how often each label was given, if known.
        failures: how often a judge failed, if known.

    Returns:
        One record for each cell and judge, cell by cell. A cell has no record for a judge that gave no verdict in it yet.
    """
    found = []
    for cell in cells:
        for judge in judges:
            verdicts = refusals.get((cell.key, judge))
            if not verdicts:
                continue
            n, count = len(verdicts), sum(verdicts.values())
            found.append(
                JudgedCell(
                    **dict(cell),
                    judge=judge,
                    n=n,
                    refusals=count,
                    rate=count / n,
                    ci95=wilson(count, n),
                    labels=dict((labels or {}).get((cell.key, judge), {})),
                    failures=(failures or {}).get((cell.key, judge), 0),
                )
            )
    return found


def comparisons(
    cells: Sequence[Cell],
    refusals: Refusals,
    judges: Sequence[str],
    groups: Groups | None = None,
    declared: Sequence[DeclaredClaim] | None = None,
) -> list[Comparison]:
    """Compares each edited cell with the same target without an edit, on the same instructions.

    The p values are corrected by Holm's method within each family of tests. Null directions and cells in which no change is
    expected are in no family.

    Args:
        cells: the cells in the order of the study, including those without an edit.
        refusals: the verdicts.
        judges: the judges in the order of the study.
        groups: groups of near-duplicate instructions; None if all are independent.
        declared: the claims that the study names; None if it names none.

    Returns:
        One comparison for each judge and edited cell, judge by judge. A cell that shares no judged instruction with the unedited
        target has none.
    """
    baselines = {cell.place: cell.key for cell in cells if not cell.edited}
    family_of = families(cells, declared)
    found: list[Comparison] = []
    for judge in judges:
        changes: dict[str, PairedChange] = {}
        for cell in cells:
            if cell.edited and cell.place in baselines:
                verdicts = paired_verdicts(refusals, judge, baselines[cell.place], cell, groups)
                if verdicts is not None:
                    changes[cell.key] = paired_change(*verdicts)
        adjusted: dict[str, float] = {}
        for family in ("confirmatory", "exploratory"):
            keys = [key for key in changes if family_of[key] == family]
            adjusted |= zip(keys, holm([changes[key].p_value for key in keys]), strict=True)
        found += [_comparison(key, judge, change, family_of[key], adjusted.get(key)) for key, change in changes.items()]
    return found


class PairedVerdicts(NamedTuple):
    """The verdicts of two cells on the instructions that both have, and the groups of these instructions, if there are any."""

    first: list[bool]
    second: list[bool]
    groups: list[int] | None


def paired_verdicts(
    refusals: Refusals, judge: str, before: str, after: Cell, groups: Groups | None = None
) -> PairedVerdicts | None:
    """The verdicts of two cells of one instruction set, instruction by instruction.

    Args:
        refusals: the verdicts.
        judge: the judge.
        before: the key of the first cell.
        after: the second cell.
        groups: groups of near-duplicate instructions; None if all are independent.

    Returns:
        The verdicts in the order of the first cell; None if no instruction has a verdict in both.
    """
    first, second = refusals.get((before, judge), {}), refusals.get((after.key, judge), {})
    common = [position for position in first if position in second]
    if not common:
        return None
    grouped = None if groups is None else [groups[after.instructions][position] for position in common]
    return PairedVerdicts([first[position] for position in common], [second[position] for position in common], grouped)


def _comparison(key: str, judge: str, change: PairedChange, family: Family, p_holm: float | None) -> Comparison:
    return Comparison(
        key=key,
        judge=judge,
        n=change.n,
        baseline_rate=change.before / change.n,
        rate=(change.before + change.gained - change.lost) / change.n,
        difference=change.difference,
        gained=change.gained,
        lost=change.lost,
        p_value=change.p_value,
        p_holm=p_holm,
        ci95=change.interval(),
        test=change.test,
        groups=change.groups,
        family=family,
    )
