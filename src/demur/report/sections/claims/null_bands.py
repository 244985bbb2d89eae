"""Every tested effect in front of its null directions: one bar for each effect, one pale band for each kind of null direction.

The bands are the null distributions that the claims were tested against. A run may measure of most null directions only the exact
probability of a refusal, which no figure of refusal rates can show.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar

from demur.analysis.cell import Claim, Null
from demur.core import number_format
from demur.report.cell_view import Entry, targets_of
from demur.report.figure_contents import Bar, BarBlock, BarRow, Bars, RateBand, Tip
from demur.report.figure_spec import FigureSpec, Sheet, TableSpec
from demur.report.outcomes.hypothesis_rows import null_words
from demur.report.sections.page_address import cell_address
from demur.report.sections.section import ReportView

_MOST_ROWS = 24
"""With more effects, the figure shows the first ones of the study's claims. The table of claims has them all."""

_TITLE = "Each effect and its null directions"


class NullBands:
    """The figure `nulls`."""

    part: ClassVar[str] = "rates"

    def figures(self, view: ReportView) -> Sequence[FigureSpec]:
        """A bar for each effect that was tested against five null directions of a kind or more; no figure if there is none."""
        import pandas

        by_key = {entry.key: entry for entry in view.entries}
        effects = [claim for claim in view.summary.claims if claim.about == "effect" and any(null.band for null in claim.nulls)]
        effects.sort(key=lambda claim: claim.family != "confirmatory")
        shown = [(claim, by_key[claim.cells[1]]) for claim in effects if claim.cells[1] in by_key][:_MOST_ROWS]
        if not shown:
            return []
        outcomes = {null.outcome for claim, _ in shown for null in claim.nulls if null.band}
        blocks = tuple(
            BarBlock(f"in {target}", tuple(_row(claim, entry, view.palette) for claim, entry in shown if entry.target == target))
            for target in targets_of([entry for _, entry in shown])
        )
        rows = [row for claim, entry in shown for row in _numbers(claim, entry)]
        caption = _caption(outcomes, view.judge)
        more = f" {len(effects) - len(shown)} further effects are in the table of claims." if len(effects) > len(shown) else ""
        said = "; ".join(f"{entry.edit} in {entry.target}: {null_words(claim.null)}" for claim, entry in shown)
        frame = pandas.DataFrame(rows)
        axis = "refusal probability (%)" if outcomes == {"probability"} else "refused (%)"
        sheet = Sheet("nulls", _TITLE, caption + more, f"{_TITLE}. {said}.", frame, Bars((axis,), blocks), frame)
        return [FigureSpec.of(sheet)]

    def tables(self, view: ReportView) -> Sequence[TableSpec]:  # noqa: ARG002
        """No tables other than the numbers of the figure."""
        return []


def _caption(outcomes: Collection[str], judge: str) -> str:
    what = {"verdict": f"refusal rate, judge {judge}", "probability": "mean probability of a refusal, exact, at temperature 1"}
    shown = " or ".join(what[each] for each in sorted(outcomes))
    both = " The numbers say which." if len(outcomes) > 1 else ""
    return (
        f"One bar for each edit and direction: {shown}, on the instructions on which its null directions were measured.{both} "
        "Pale bands: where 95 % of null directions of a kind lie, with a line at their centre. A bar inside a band does no more "
        "than a direction that means nothing."
    )


def _row(claim: Claim, entry: Entry, palette: Mapping[str, str]) -> BarRow:
    value = 100 * _value(claim)
    banded = [(null, *null.band) for null in claim.nulls if null.band]
    bands = tuple(RateBand(100 * low, 50 * (low + high), 100 * high, _tip(null)) for null, low, high in banded)
    label = f"{entry.variant} {entry.done}, {entry.instructions}"
    lines = (f"{value:.1f} % refused", *(null_words(null) for null in claim.nulls))
    colour = palette.get(entry.source or "")
    bar = Bar(value, value, value, f"{value:.0f} %", Tip(label, lines), colour, bands=bands, selects=cell_address(entry))
    return BarRow(label, (bar,))


def _value(claim: Claim) -> float:
    """What was compared with the null directions: the mean probability where they have one, or else the rate."""
    known = next((null.value for null in claim.nulls if null.band and null.value is not None), None)
    return known if known is not None else claim.rates[1] if claim.rates is not None else 0.0


def _tip(null: Null) -> Tip:
    low, high = null.reach or (0.0, 0.0)
    return Tip(f"{null.n} {null.kind} directions", (f"they give {100 * low:.1f} to {100 * high:.1f} %", null_words(null)))


def _numbers(claim: Claim, entry: Entry) -> list[dict[str, object]]:
    return [
        {
            "target": entry.target,
            "instructions": entry.instructions,
            "edit": entry.edit,
            "null directions": f"{null.n} {null.kind}",
            "outcome": null.outcome,
            "under the edit": f"{100 * (claim.rates[1] if null.value is None and claim.rates else null.value or 0):.1f} %",
            "lowest and highest": number_format.interval(null.reach) if null.reach else "",
            "95 % band": number_format.interval(null.band) if null.band else "",
            "do as much": null.place,
            "p": number_format.p_value(null.p),
        }
        for null in claim.nulls
    ]
