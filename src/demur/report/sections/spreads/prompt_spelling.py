"""The rate of refusals under small edits of each prompt format, one row for each spelling."""

from collections.abc import Sequence
from typing import ClassVar

from demur.analysis.spreads.prompt_spread import PromptSpread, SpellingRate
from demur.core import number_format
from demur.inputs.prompt_edits import EDITS
from demur.report.figure_spec import FigureSpec, TableSpec
from demur.report.sections.section import ReportView

CAPTION = (
    "The same instructions with small edits of the prompt format and without an edit of the stream, with 95 % intervals. Range: "
    "the lowest and the highest rate of one format, and their paired difference in points; its 95 % interval is corrected for "
    "the choice among all pairs of spellings. Cosine: between the direction of a spelling and that of the format as it is."
)


class PromptSpelling:
    """The table `prompt-spelling`."""

    part: ClassVar[str] = "rates"

    def figures(self, view: ReportView) -> Sequence[FigureSpec]:  # noqa: ARG002
        """No figures."""
        return []

    def tables(self, view: ReportView) -> Sequence[TableSpec]:
        """One row for each spelling, and one for the range; none for a run without small edits."""
        import pandas

        mine = [one for one in view.summary.spellings if one.judge == view.judge]
        if not mine:
            return []
        readable = [row for one in mine for row in _readable(one)]
        data = [_numbers(one, place, each) for one in mine for place, each in enumerate(one.spellings)]
        names = frozenset({"Rate", "95 %", "Cosine"})
        return [TableSpec("prompt-spelling", CAPTION, pandas.DataFrame(data), pandas.DataFrame(readable), names)]


def _readable(one: PromptSpread) -> list[dict[str, str]]:
    digits = number_format.decimals(one.n)
    outcome = "refused" if one.outcome == "verdict" else "probability"
    first = {"Checkpoint": one.checkpoint, "Prompt": one.prompt, "Instructions": one.instructions, "Outcome": outcome}
    rows = [
        {
            **first,
            "Spelling": EDITS.get(each.edit, "as it is"),
            "Rate": number_format.percent(each.rate, one.n),
            "95 %": number_format.interval(each.ci95, digits),
            "Cosine": number_format.hundredths(each.cosine),
        }
        for each in one.spellings
    ]
    low, high = (number_format.percent(one.spellings[place].rate, one.n) for place in (one.lowest, one.highest))
    change = number_format.points(one.difference, digits)
    return [
        *rows,
        {
            **first,
            "Spelling": "range",
            "Rate": f"{low.removesuffix(' %')} to {high}",
            "95 %": f"{change} {number_format.interval(one.ci95, digits)}",
            "Cosine": "",
        },
    ]


def _numbers(one: PromptSpread, place: int, each: SpellingRate) -> dict[str, object]:
    return {
        "checkpoint": one.checkpoint,
        "prompt": one.prompt,
        "instructions": one.instructions,
        "outcome": one.outcome,
        "edit": each.edit,
        "n": one.n,
        "rate": each.rate,
        "ci95 low": each.ci95[0],
        "ci95 high": each.ci95[1],
        "cosine": each.cosine,
        "lowest": place == one.lowest,
        "highest": place == one.highest,
        "largest difference": one.difference,
        "difference low": one.ci95[0],
        "difference high": one.ci95[1],
    }
