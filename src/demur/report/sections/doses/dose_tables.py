"""The dose at which half is refused, and directions compared at one dose."""

from collections.abc import Sequence
from typing import ClassVar

from demur.analysis.doses.dose_response import DoseCurve
from demur.analysis.doses.equal_dose import EqualDose
from demur.core import number_format
from demur.report.cell_view import Entry
from demur.report.figure_spec import FigureSpec, TableSpec
from demur.report.sections.section import ReportView


class DoseTables:
    """The tables `half-dose` and `equal-dose`."""

    part: ClassVar[str] = "rates"

    def figures(self, view: ReportView) -> Sequence[FigureSpec]:  # noqa: ARG002
        """No figures."""
        return []

    def tables(self, view: ReportView) -> Sequence[TableSpec]:
        """A table of curves and one of comparisons; neither for a run without several doses or several sources."""
        by_key = {entry.key: entry for entry in view.entries}
        curves = [one for one in view.summary.doses.curves if one.doses[-1].key in by_key]
        equal = [one for one in view.summary.doses.equal if one.key in by_key and one.own_key in by_key]
        return [*([_half(curves, by_key)] if curves else []), *([_equal(equal, by_key)] if equal else [])]


def _half(curves: Sequence[DoseCurve], by_key: dict[str, Entry]) -> TableSpec:
    import pandas

    data = [{**one.model_dump(exclude={"doses"}), "doses": len(one.doses) - 1} for one in curves]
    readable = []
    for one in curves:
        entry = by_key[one.doses[-1].key]
        share, loss = one.half_residual_share, one.half_loss_change
        readable.append(
            {
                "Target": entry.target,
                "Instructions": one.instructions,
                "Direction": entry.direction,
                "Unit": one.unit,
                "Half at": f"over {abs(one.doses[-1].coefficient):g}" if one.half is None else number_format.number(one.half, 2),
                "Of the stream": "" if share is None else f"{100 * share:.2g} %",
                "Loss": "" if loss is None else f"{loss:+.2f}".replace("-", number_format.MINUS),
                "Text": {True: "text", False: "broken", None: "not known"}[one.half_coherent] if one.half is not None else "",
            }
        )
    caption = (
        "The coefficient at which half of the instructions are refused, between two doses by a straight line on the log-odds of "
        "the mean probability of a refusal where it was measured, else of the rate; 'over' the largest dose if none reaches it. "
        "Of the stream: the length that is added, as a share of the mean norm of the target's stream. Loss: of the text there, "
        "in nats a token more than without an edit."
    )
    numbers = frozenset({"Half at", "Of the stream", "Loss"})
    return TableSpec("half-dose", caption, pandas.DataFrame(data), pandas.DataFrame(readable), numbers)


def _equal(equal: Sequence[EqualDose], by_key: dict[str, Entry]) -> TableSpec:
    import pandas

    data = [
        {
            **one.model_dump(exclude={"norms", "ci95"}),
            "norm": one.norms[0],
            "own norm": one.norms[1],
            "ci95 low": one.ci95[0],
            "ci95 high": one.ci95[1],
        }
        for one in equal
    ]
    readable = []
    for one in equal:
        entry, digits = by_key[one.key], number_format.decimals(one.n)
        readable.append(
            {
                "Target": entry.target,
                "Instructions": entry.instructions,
                "Direction": entry.direction,
                "Dose": entry.dose,
                "Equal": "length" if one.equal == "norm" else "multiple only",
                "Own": number_format.percent(by_key[one.own_key].rate, one.n),
                "This": number_format.percent(entry.rate, one.n),
                "Difference": f"{number_format.points(one.difference, digits)} {number_format.interval(one.ci95, digits)}",
                "p": number_format.p_value(one.p_value),
            }
        )
    caption = (
        "Each direction against the target's own direction at the same coefficient: refusal rates and their difference in "
        "points, on the same instructions, not corrected for the number of rows. In units of the raw norm only the multiple is "
        "equal: the lengths that are added differ, as the CSV file says."
    )
    numbers = frozenset({"Own", "This", "Difference", "p"})
    return TableSpec("equal-dose", caption, pandas.DataFrame(data), pandas.DataFrame(readable), numbers)
