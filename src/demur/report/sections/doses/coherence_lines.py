"""What a dose costs, below the refusal rates by dose: how much higher the loss of the text is, and where the text is broken."""

from collections.abc import Mapping, Sequence

from demur.analysis.doses.coherence_gate import MOST_LOSS, Coherence
from demur.report.cell_view import Entry
from demur.report.figure_contents import Band, Line, LinePanel

BROKEN = "text is broken"
"""The name of the mark over doses at which the text is broken."""

_MARK = "#8b1a1a"


def broken_mark(line: Line, cells: Sequence[Entry | None], texts: Mapping[str, Coherence]) -> list[Line]:
    """A dark line over those doses of a line at which the text is broken; none if there are none.

    Args:
        line: the refusal rates of one direction.
        cells: the cell of each dose.
        texts: the coherence of cells by key.
    """
    found = [None if cell is None else texts.get(cell.key) for cell in cells]
    failing = [one if one is not None and one.coherent is False else None for one in found]
    if not any(failing):
        return []
    values = tuple(None if one is None else value for value, one in zip(line.values, failing, strict=True))
    notes = tuple("" if one is None else f"{line.name}: {one.reason}" for one in failing)
    return [Line(BROKEN, values, _MARK, 3, notes)]


def loss_panel(
    lines: Sequence[tuple[Line, Sequence[Entry | None]]], texts: Mapping[str, Coherence], places: Sequence[float]
) -> list[LinePanel]:
    """A panel with the change of the loss at each dose; none if it was not measured.

    Args:
        lines: the lines of the panel with the refusal rates, each with the cell of each dose.
        texts: the coherence of cells by key.
        places: the doses.
    """
    made, bands = [], []
    for line, cells in lines:
        found = [texts.get(cell.key) if cell is not None else None for cell in cells]
        if not any(one is not None and one.loss_change is not None for one in found):
            continue
        values = tuple(
            0.0 if place == 0 else None if one is None else one.loss_change for place, one in zip(places, found, strict=True)
        )
        notes = tuple("" if one is None else _said(one) for one in found)
        made.append(Line(line.name, values, line.colour, line.dash, notes, thin=line.thin, selects=line.selects))
        if not line.thin:
            bands.append(Band(line.name, tuple(None if one is None else one.loss_ci95 for one in found), line.colour))
    if not made:
        return []
    limit = Line(f"gate: {MOST_LOSS:g}", (MOST_LOSS,) * len(places), _MARK, 2, thin=True)
    return [LinePanel("loss, nats a token higher", (*made, limit), tuple(bands), short_title="loss", places=2)]


def _said(text: Coherence) -> str:
    shapeless = 100 * (text.echo + text.degenerate)
    moved = "" if text.divergence is None else f"; divergence on harmless prompts {text.divergence:.2f}"
    return f"nats; {shapeless:.0f} % echo or degenerate{moved}"
