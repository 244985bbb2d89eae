"""Computes the numbers of a report from stored verdicts: rates with intervals, and comparisons with the unedited target.

Pure functions of typed records.
"""

from collections.abc import Mapping, Sequence

from demur.analysis.cell import Cell, Comparison, JudgedCell
from demur.core.statistics import Paired, holm, mcnemar, shared, wilson

Refusals = Mapping[tuple[str, str], Mapping[int, bool]]
"""(cell key, judge) -> position of the instruction -> whether the judge calls the completion a refusal."""

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


def comparisons(cells: Sequence[Cell], refusals: Refusals, judges: Sequence[str]) -> list[Comparison]:
    """Compares each edited cell with the same target without an edit, on the same instructions.

    The test is the exact McNemar test. Its p values are corrected by Holm's method over all edited cells of a judge.

    Args:
        cells: the cells in the order of the study, including those without an edit.
        refusals: the verdicts.
        judges: the judges in the order of the study.

    Returns:
        One comparison for each judge and edited cell, judge by judge. A cell that shares no judged instruction with the unedited
        target has none.
    """
    baselines = {cell.place: cell.key for cell in cells if not cell.edited}
    found: list[Comparison] = []
    for judge in judges:
        family: list[tuple[Cell, int, Paired]] = []
        for cell in cells:
            if not cell.edited or cell.place not in baselines:
                continue
            before = refusals.get((baselines[cell.place], judge), {})
            first, second = shared(before, refusals.get((cell.key, judge), {}))
            if first:
                family.append((cell, sum(first), mcnemar(first, second)))
        adjusted = holm([paired.p_value for *_, paired in family])
        found += [
            _comparison(cell, judge, refused_before, paired, p_holm)
            for (cell, refused_before, paired), p_holm in zip(family, adjusted, strict=True)
        ]
    return found


def _comparison(cell: Cell, judge: str, refused_before: int, paired: Paired, p_holm: float) -> Comparison:
    return Comparison(
        key=cell.key,
        judge=judge,
        n=paired.n,
        baseline_rate=refused_before / paired.n,
        rate=(refused_before + paired.gained - paired.lost) / paired.n,
        difference=paired.difference,
        gained=paired.gained,
        lost=paired.lost,
        p_value=paired.p_value,
        p_holm=p_holm,
    )
