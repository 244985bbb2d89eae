"""What the edits under test do when their directions come from resamples of the training pairs, as typed values and sentences.

An interval over instructions holds the direction fixed. Here its training pairs vary, too. Pure functions of typed records.
"""

from collections.abc import Mapping, Sequence
from statistics import stdev

from demur.analysis.cell import Answer, Cell, Comparison, Record
from demur.analysis.cell_phrases import Words, capitalised, edit_text, source_text, target_text
from demur.analysis.edit_tests import Probabilities, same_setting
from demur.analysis.rates import Groups, Refusals
from demur.core import number_format
from demur.core.effects.grouped_differences import GroupedChanges
from demur.core.effects.null_distribution import Outcome
from demur.core.effects.resampled_effects import interval_over_pairs

NAMED = 3
"""Up to this many edits get a sentence of their own."""


class PairsSpread(Record):
    """An edit under test with directions from resamples of the training pairs. Rates and changes are fractions.

    Attributes:
        key: the cell of the edit with the direction from all training pairs.
        judge: the judge.
        outcome: whether rates of verdicts or mean probabilities of a refusal are compared.
        n: the number of instructions on which all of these are known.
        resamples: the number of resamples.
        baseline_rate: the rate without the edit.
        rate: the rate with the direction from all training pairs.
        rates: the rate with the direction of each resample, in their order.
        sd: the standard deviation of these rates.
        cosines: the lowest and the highest cosine between the direction of a resample and that from all pairs; None if not known.
        difference: `rate` minus `baseline_rate`.
        ci95: its 95 % interval over instructions, with the direction held fixed.
        ci95_pairs: its 95 % interval over instructions and training pairs.
    """

    key: str
    judge: str
    outcome: Outcome
    n: int
    resamples: int
    baseline_rate: float
    rate: float
    rates: tuple[float, ...]
    sd: float
    cosines: tuple[float, float] | None
    difference: float
    ci95: tuple[float, float]
    ci95_pairs: tuple[float, float]

    @property
    def shown(self) -> bool:
        """Whether the interval over instructions and training pairs holds only changes of one sign."""
        return not self.ci95_pairs[0] <= 0 <= self.ci95_pairs[1]


def pairs_spreads(
    cells: Sequence[Cell],
    resampled: Sequence[Cell],
    compared: Sequence[Comparison],
    refusals: Refusals,
    judge: str,
    *,
    groups: Groups | None = None,
    probabilities: Probabilities | None = None,
    cosines: Mapping[str, float | None] | None = None,
) -> list[PairsSpread]:
    """The spread of each edit under test over resamples of its training pairs.

    Args:
        cells: the cells of a run, without those of resamples.
        resampled: the cells of resamples.
        compared: the comparisons of `cells` with the unedited targets.
        refusals: the verdicts.
        judge: the judge whose verdicts count.
        groups: groups of near-duplicate instructions; None if all are independent.
        probabilities: the probability of a refusal, by cell and instruction, where it was measured.
        cosines: the cosine of each resampled direction with the one from all pairs, by name.

    Returns:
        For each edited cell up to two: of its verdicts, and of its probabilities.
    """
    by_direction: dict[str, list[Cell]] = {}
    for one in resampled:
        by_direction.setdefault(str(one.resample_of), []).append(one)
    baselines = {cell.place: cell.key for cell in cells if not cell.edited}
    rows = {row.key: row for row in compared if row.judge == judge}
    found = []
    for cell in cells:
        mine = [one for one in by_direction.get(str(cell.direction), ()) if same_setting(one, cell)]
        if cell.control or len(mine) < 2 or cell.place not in baselines:
            continue
        near = [near for one in mine if (near := (cosines or {}).get(str(one.direction))) is not None]
        facts = (cell.key, judge, (min(near), max(near)) if near else None)
        keys = (baselines[cell.place], cell.key, *(one.key for one in mine))
        given = None if groups is None else groups[cell.instructions]
        verdicts = [refusals.get((key, judge), {}) for key in keys]
        if cell.key in rows and all(verdicts):
            found.append(_spread(facts, "verdict", verdicts, rows[cell.key].ci95, given))
        measured = [(probabilities or {}).get(key, {}) for key in keys]
        if all(measured):
            found.append(_spread(facts, "probability", measured, None, given))
    return found


def _spread(
    facts: tuple[str, str, tuple[float, float] | None],
    outcome: Outcome,
    outcomes: Sequence[Mapping[int, float]],
    interval: tuple[float, float] | None,
    groups: Sequence[int] | None,
) -> PairsSpread:
    """One edit. The outcomes are those without an edit, with the direction from all pairs, and with that of each resample."""
    key, judge, cosines = facts
    common = [place for place in outcomes[0] if all(place in each for each in outcomes)]
    before, edited, *others = ([float(each[place]) for place in common] for each in outcomes)
    rates = [sum(each) / len(common) for each in (before, edited, *others)]
    known = [place if groups is None else groups[place] for place in common]
    fixed = GroupedChanges.of(before, edited, known).method.interval() if interval is None else interval
    difference = rates[1] - rates[0]
    return PairsSpread(
        key=key,
        judge=judge,
        outcome=outcome,
        n=len(common),
        resamples=len(others),
        baseline_rate=rates[0],
        rate=rates[1],
        rates=tuple(rates[2:]),
        sd=stdev(rates[2:]),
        cosines=cosines,
        difference=difference,
        ci95=fixed,
        ci95_pairs=interval_over_pairs(rates[0], rates[1], fixed, rates[2:], len(common), outcome),
    )


def spread_text(one: PairsSpread) -> str:
    """What the resamples do, as a part of a sentence that begins "over 5 resamples of the training pairs"."""
    low, high = (number_format.percent(rate, one.n) for rate in (min(one.rates), max(one.rates)))
    reach = f"are {low}" if low == high else f"run from {low.removesuffix(' %')} to {high}"
    sd = number_format.points(one.sd, 1).removeprefix("+")
    what = "refusals" if one.outcome == "verdict" else "probabilities of a refusal"
    change = number_format.change(one.difference, one.ci95_pairs, one.n)
    return (
        f"over {one.resamples} resamples of the training pairs {what} {reach} (sd {sd} points); with the interval over "
        f"instructions and training pairs, the change is {change}"
    )


def spread_answers(spreads: Sequence[PairsSpread], cells: Sequence[Cell], claimed: Sequence[str], words: Words) -> list[Answer]:
    """What resampling the training pairs does to the claims of a study.

    Args:
        spreads: what `pairs_spreads` gave.
        cells: the cells of the run.
        claimed: the keys of the cells that are claims of the study.
        words: the words for each action of the run's edits.

    Returns:
        A sentence for each claim, or one for the widest of more than three. A sentence counts as shown if the interval over
        instructions and training pairs holds only changes of one sign.
    """
    by_key = {cell.key: cell for cell in cells}
    mine = [one for one in spreads if one.outcome == "verdict"] or list(spreads)
    wanted = [one for one in mine if one.key in claimed]
    widest = sorted(wanted, key=lambda one: one.sd, reverse=True)
    if len(wanted) <= NAMED:
        return [_answer(one, by_key[one.key], cells, words) for one in wanted]
    stay = sum(one.shown for one in wanted)
    first = _answer(widest[0], by_key[widest[0].key], cells, words)
    text = (
        f"If training pairs vary as well as instructions, {stay} of {len(wanted)} changes still differ from 0 (95 %). "
        f"The largest spread: {first.text}"
    )
    return [Answer(text=text, shown=stay > 0, cells=first.cells)]


def _answer(one: PairsSpread, cell: Cell, cells: Sequence[Cell], words: Words) -> Answer:
    edit = words[cell.action]
    whose = f"{source_text(cell)}'s"
    what = f"{capitalised(edit_text(edit, whose))} {edit.into} {target_text(cell, cells)}"
    text = f"{what}, {cell.instructions} instructions: {spread_text(one)}."
    return Answer(text=text, shown=one.shown, cells=(cell.key,))
