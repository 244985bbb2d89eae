"""How the run selected its layer: the effect and the damage of the edits at every candidate layer."""

from collections.abc import Sequence
from typing import ClassVar

from demur.analysis.selection_record import SelectedPlace, SelectionRecord
from demur.report.figure_contents import LayerLines, Line, LinePanel
from demur.report.figure_spec import FigureSpec, Sheet, TableSpec
from demur.report.sections.layer_view import layer_table, numbers_of
from demur.report.sections.section import ReportView
from demur.report.style import PALETTE

_TITLE = "Selection of the layer on validation instructions"


class SelectionByLayer:
    """The figure `selection` and the table `selection-doses`, for runs that selected settings."""

    part: ClassVar[str] = "Selection"

    def figures(self, view: ReportView) -> Sequence[FigureSpec]:
        """Effect and damage by layer, at the selected position; no figure if nothing was selected or only one layer was tried."""
        found = view.summary.selection
        if found is None or len(found.places) < 2:
            return []
        places = {place.layer: place for place in found.places if place.position == found.position}
        count = max(place.layer for place in found.places) + 1
        rows = [places.get(layer) for layer in range(count)]
        shares = tuple(None if row is None else row.share for row in rows)
        damages = tuple(None if row is None else row.kl for row in rows)
        changes = tuple(None if row is None else row.change for row in rows)
        notes = tuple("" if row is None else _note(row) for row in rows)
        content = LayerLines(
            (
                LinePanel(
                    "change of the log-odds",
                    (Line("effect of the edits", shares, PALETTE[0], 0, notes),),
                    unit="of the difference between harmful and harmless",
                    short_title="effect",
                ),
                LinePanel("damage (nats)", (Line("damage", damages, PALETTE[1], 0, notes),), unit="nats", short_title="damage"),
            ),
            (found.layer,),
            inches=3.4,
            pixels=480,
        )
        caption = (
            "Above: the change of the log-odds of a refusal in the expected direction, as a share of the difference between "
            "harmful and harmless instructions, averaged over the edits of the study. "
            "Below: how much the edits change the next token after harmless instructions. "
            "The dotted line is the selected layer. Each direction was tried in the arm that it came from."
        )
        data = layer_table(
            [
                ("effect", numbers_of(shares)),
                ("instructions", ["" if row is None else row.n for row in rows]),
                ("damage (nats)", numbers_of(damages)),
                ("change of refusals", numbers_of(changes)),
                ("why not chosen", ["" if row is None else row.dropped for row in rows]),
            ],
            count,
        )
        return [FigureSpec.of(Sheet("selection", _TITLE, caption, f"{_TITLE}. {_said(found)}", data, content))]

    def tables(self, view: ReportView) -> Sequence[TableSpec]:
        """The coefficients that were tried; no table if all were given."""
        import pandas

        found = view.summary.selection
        if found is None or not found.doses:
            return []
        data = pandas.DataFrame([dose.model_dump() for dose in found.doses])
        readable = pandas.DataFrame(
            [
                {
                    "Edit": f"{dose.kind} {dose.coefficient:g} {dose.unit}",
                    "Change of refusals": f"{100 * dose.change:+.0f} points",
                    "More broken": f"{100 * dose.broken:+.0f} points",
                    "Chosen": "yes" if found.coefficients.get(dose.intervention) == dose.coefficient else "",
                }
                for dose in found.doses
            ]
        )
        caption = (
            f"Coefficients that were tried at layer {found.layer}, on {found.doses[0].n} validation instructions. "
            "The smallest is chosen that reaches four fifths of the largest change without breaking the text."
        )
        return [TableSpec("selection-doses", caption, data, readable, frozenset({"Change of refusals", "More broken"}))]


def _note(place: SelectedPlace) -> str:
    changed = "" if place.change is None else f"refusals change by {100 * place.change:.0f} points"
    return "; ".join(part for part in (changed, place.dropped) if part)


def _said(found: SelectionRecord) -> str:
    """The choice in one sentence."""
    best = found.places[0]
    change = "" if best.change is None else f", where refusals change by {100 * best.change:.0f} points"
    return f"Layer {found.layer} at position {found.position} of {len(found.places)} places was chosen{change}."
