"""The edits under test with directions from resamples of the training pairs: one row for each edit, not each resample."""

from collections.abc import Sequence
from typing import ClassVar

from demur.analysis.spreads.pairs_spread import PairsSpread
from demur.core import number_format
from demur.report.cell_view import Entry
from demur.report.figure_spec import FigureSpec, TableSpec
from demur.report.sections.section import ReportView

CAPTION = (
    "What an edit does if its direction comes from another sample of training pairs: each direction was made again from {count} "
    "bootstrap resamples of its pairs, and all other settings stayed. Rates: without an edit, with the direction from all pairs, "
    "and the lowest and the highest with a resample, with their standard deviation in points. The first interval holds the "
    "direction fixed and is over instructions. The second is over instructions and training pairs."
)


class TrainingPairs:
    """The table `training-pairs`."""

    part: ClassVar[str] = "rates"

    def figures(self, view: ReportView) -> Sequence[FigureSpec]:  # noqa: ARG002
        """No figures."""
        return []

    def tables(self, view: ReportView) -> Sequence[TableSpec]:
        """One row for each edit under test and outcome; none for a run without resamples."""
        import pandas

        by_key = {entry.key: entry for entry in view.entries}
        mine = [one for one in view.summary.pairs if one.judge == view.judge and one.key in by_key]
        if not mine:
            return []
        several = len({one.outcome for one in mine}) > 1
        readable = [_readable(one, by_key[one.key], several) for one in mine]
        data = [_numbers(one, by_key[one.key]) for one in mine]
        caption = CAPTION.format(count=max(one.resamples for one in mine))
        names = frozenset({"Without", "All pairs", "Resamples", "sd", "Change", "Direction fixed", "Pairs vary", "Cosines"})
        return [TableSpec("training-pairs", caption, pandas.DataFrame(data), pandas.DataFrame(readable), names)]


def _readable(one: PairsSpread, entry: Entry, several: bool) -> dict[str, str]:
    digits = number_format.decimals(one.n)
    low, high = (number_format.percent(rate, one.n) for rate in (min(one.rates), max(one.rates)))
    outcome = {"Outcome": "verdicts" if one.outcome == "verdict" else "probability"} if several else {}
    return {
        "Target": entry.target,
        "Instructions": entry.instructions,
        "Edit": f"{entry.variant} {entry.done}",
        **outcome,
        "Without": number_format.percent(one.baseline_rate, one.n),
        "All pairs": number_format.percent(one.rate, one.n),
        "Resamples": f"{low.removesuffix(' %')} to {high}",
        "sd": f"{100 * one.sd:.1f}",
        "Change": number_format.points(one.difference, digits),
        "Direction fixed": number_format.interval(one.ci95, digits),
        "Pairs vary": number_format.interval(one.ci95_pairs, digits),
        "Cosines": "" if one.cosines is None else " to ".join(map(number_format.hundredths, one.cosines)),
    }


def _numbers(one: PairsSpread, entry: Entry) -> dict[str, object]:
    return {
        "target": entry.cell.target,
        "prompt": entry.cell.prompt,
        "instructions": entry.instructions,
        "intervention": entry.intervention,
        "direction": entry.cell.direction,
        "coefficient": entry.cell.coefficient,
        "judge": one.judge,
        "outcome": one.outcome,
        "n": one.n,
        "resamples": one.resamples,
        "baseline rate": one.baseline_rate,
        "rate": one.rate,
        "lowest": min(one.rates),
        "highest": max(one.rates),
        "sd": one.sd,
        "difference": one.difference,
        "ci95 low": one.ci95[0],
        "ci95 high": one.ci95[1],
        "ci95 pairs low": one.ci95_pairs[0],
        "ci95 pairs high": one.ci95_pairs[1],
        "lowest cosine": None if one.cosines is None else one.cosines[0],
        "highest cosine": None if one.cosines is None else one.cosines[1],
    }
