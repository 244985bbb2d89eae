"""The exact probability of a refusal at each dose, below the refusal rates by dose."""

from collections.abc import Sequence

from demur.report.cell_view import Entry
from demur.report.figure_contents import Band, Line, LinePanel


def probability_panel(lines: Sequence[tuple[Line, Sequence[Entry | None]]]) -> list[LinePanel]:
    """A panel with the mean probability of a refusal at each dose; none if it was not measured.

    Args:
        lines: the lines of the panel with the refusal rates, each with the cell of each dose.
    """
    made, bands = [], []
    for line, cells in lines:
        found = [None if cell is None else cell.likelihood for cell in cells]
        # The cell without an edit alone is no line.
        if not any(one is not None and cell is not None and cell.edited for one, cell in zip(found, cells, strict=True)):
            continue
        values = tuple(None if one is None else one.mean for one in found)
        notes = tuple("" if one is None else f"{one}, {one.n} instructions" for one in found)
        made.append(Line(line.name, values, line.colour, line.dash, notes, thin=line.thin, selects=line.selects))
        if not line.thin:
            bands.append(Band(line.name, tuple(None if one is None else one.interval for one in found), line.colour))
    if not made:
        return []
    return [LinePanel("probability", tuple(made), tuple(bands), scale="share", top=1.0)]
