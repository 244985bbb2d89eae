"""The style of all static figures: column widths of a paper, a colour-blind-safe palette, and files that are always the same.

This module does not use pyplot, and it restores every setting of matplotlib. Mathematical notation is switched off, so that any
checkpoint name can be a label.
"""

from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SINGLE, DOUBLE = 3.25, 6.75
"""Widths of one and of two columns of a usual paper, in inches."""

KINDS = ("svg", "png", "pdf")
"""The files that every figure is written as."""

NEUTRAL, GREY, LIGHT = "#4d4d4d", "#b3b3b3", "#e6e6e6"

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#F0E442")
"""Okabe and Ito's colours (2008), the most distinct first. Only text is black."""

HEAT = ("#56B4E9", "#E69F00")
"""The colours for values above and below zero. Both are light enough for black text."""

# Any: matplotlib's settings have values of many types.
STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # ships with matplotlib, so the glyphs are the same on every machine
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7.5,
    "axes.linewidth": 0.6,
    "axes.edgecolor": NEUTRAL,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.color": NEUTRAL,
    "xtick.labelcolor": "black",
    "hatch.linewidth": 0.6,
    "figure.facecolor": "white",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,  # TrueType, which journals ask for, and whose text can be searched and copied
    "svg.hashsalt": "demur",
    "text.parse_math": False,
    "figure.autolayout": False,
    "figure.constrained_layout.use": False,
    "figure.dpi": 300,  # the same as when saving, because letter widths are rounded to whole dots
    "savefig.dpi": 300,
}


_WRITTEN_BY_ITSELF = {
    "svg": ("Date", "Creator", "Format", "Type"),
    "png": ("Software",),
    "pdf": ("CreationDate", "Creator", "Producer"),
}
"""Metadata that matplotlib writes unless told otherwise, by kind of file."""


def colours(checkpoints: Sequence[str]) -> dict[str, str]:
    """A colour for each checkpoint, in the order of the lineage."""
    return {name: PALETTE[index % len(PALETTE)] for index, name in enumerate(checkpoints)}


def shade(value: float, colour: str = HEAT[0]) -> str:
    """White at 0, the full colour at 1, as six hex digits. Black text can be read on every shade."""
    parts = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(255 + (part - 255) * min(max(value, 0.0), 1.0)):02x}" for part in parts)


def diverging(value: float) -> str:
    """Orange at -1, white at 0, blue at 1."""
    return shade(abs(value), HEAT[0] if value >= 0 else HEAT[1])


def scattered(index: int) -> float:
    """The van der Corput sequence: numbers between 0 and 1 that are spread evenly and are always the same."""
    value, share = 0.0, 0.5
    while index:
        value, share, index = value + share * (index % 2), share / 2, index // 2
    return value


def group_offsets(count: int) -> list[float]:
    """Where the groups of a strip of points lie around its middle, as fractions of the distance between two strips."""
    return [0.88 / count * (index - (count - 1) / 2) for index in range(count)]


def settled(figure: "Figure") -> "Figure":
    """Computes the layout of a figure once, so that all files that are saved from it have the same layout."""
    engine = figure.get_layout_engine()
    assert engine is not None, "the layout of this figure is already fixed"
    engine.execute(figure)
    figure.set_layout_engine(None)  # with "none", a placeholder would remain, and each file would be drawn twice
    return figure


def save(figure: Any, kind: str) -> bytes:
    """A figure as one of `KINDS`. Equal figures give equal bytes, because no date and no program name is written."""
    from matplotlib import rc_context

    buffer = BytesIO()
    with rc_context(STYLE):
        figure.savefig(buffer, format=kind, metadata=dict.fromkeys(_WRITTEN_BY_ITSELF[kind]))
    return buffer.getvalue()
