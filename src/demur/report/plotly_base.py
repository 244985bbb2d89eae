"""Shared parts of interactive figures: their data, axes, labels, and colours in the light and the dark theme.

A figure is plain data for Plotly, so that the page and a notebook draw the same one. Names are escaped if Plotly would read them
as markup. Every colour that depends on the theme is one of the constants below, and the page replaces these in the dark theme.
The other colours can be told apart by colour-blind readers in both themes.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from demur.report.figure_contents import Tip

INK, SOFT, LINE, PAPER, CONTROL = "#1d1d1b", "#5a5a55", "#d9d9d2", "#fdfdfb", "#a8a8a2"
LOW, HIGH, AGAINST = "#f4f4ef", "#56b3e8", "#e6a000"
"""Ends of the colour scales: zero, large, and large negative."""
DARK = {
    INK: "#e6e5e0",
    SOFT: "#a6a59e",
    LINE: "#3a3c3a",
    PAPER: "#161716",
    CONTROL: "#7d7d78",
    LOW: "#232625",
    HIGH: "#0b78bb",
    AGAINST: "#a86400",
}
"""The colour in the dark theme for each colour above."""
ROW = 21
"""Height of a bar or of a row of cells with its margins, in pixels."""
# Any: Plotly's own JSON, nested to any depth.
Json = dict[str, Any]
"""A part of a figure in Plotly's own format, so demur has no type for it."""
SANS = 'system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif'


@dataclass(frozen=True)
class Interactive:
    """A figure for Plotly.

    Attributes:
        name: the name by which `Run.figure` finds it.
        title: what it shows.
        data: Plotly's traces.
        layout: Plotly's layout.
        narrow: paths into the layout, each with its value on a phone.
    """

    name: str
    title: str
    data: list[Json]
    layout: Json
    narrow: Json = field(default_factory=dict)

    def titled(self) -> Json:
        """The layout with the title in it, for use where the figure has no caption."""
        top = 70 if self.layout["showlegend"] or self.layout.get("annotations") else 40
        title = {
            "text": self.title,
            "x": 0,
            "xanchor": "left",
            "y": 1,
            "yanchor": "top",
            "yref": "container",
            "pad": {"t": 8, "l": 8},
        }
        return {
            **self.layout,
            "title": title,
            "height": self.layout["height"] + top,
            "margin": {**self.layout["margin"], "t": top},
            "paper_bgcolor": PAPER,
        }


def label(text: str, width: int = 30) -> str:
    """A name in lines of about this width, escaped so that Plotly shows it unchanged."""
    return "<br>".join(escape(line, quote=False) for line in textwrap.wrap(text, width)) or escape(text, quote=False)


def row_height(labels: Sequence[str]) -> int:
    """The height of a row with enough room for its label, in pixels."""
    return max(ROW, max((15 * (text.count("<br>") + 1) + 4 for text in labels), default=ROW))


def frame(height: int, **more: Any) -> Json:
    """The parts that all layouts share."""
    return {
        "height": height,
        "font": {"family": SANS, "size": 12, "color": INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "hovermode": "closest",
        "dragmode": False,
        "hoverlabel": {
            "bgcolor": PAPER,
            "bordercolor": SOFT,
            "font": {"family": SANS, "size": 12, "color": INK},
            "align": "left",
        },
        "showlegend": False,
        **more,
    }


def axis(title: str = "", **more: Any) -> Json:
    """An axis with the settings that all figures share."""
    return {
        "title": {"text": escape(title, quote=False), "font": {"size": 12}, "standoff": 6},
        "gridcolor": LINE,
        "linecolor": LINE,
        "zeroline": False,
        "automargin": True,
        "fixedrange": True,
        **more,
    }


def numbered(kind: str, index: int) -> str:
    """Plotly's name of an axis: `x`, `x2`, ..."""
    return kind if index == 0 else f"{kind}{index + 1}"


def layout_key(kind: str, index: int) -> str:
    """Plotly's key of an axis in a layout: `xaxis`, `xaxis2`, ..."""
    return f"{kind}axis" if index == 0 else f"{kind}axis{index + 1}"


def spread(index: int, count: int, gap: float) -> list[float]:
    """The part of the width or height that panel `index` of `count` takes."""
    size = (1 - gap * (count - 1)) / count
    return [index * (size + gap), index * (size + gap) + size]


def tip_text(tip: Tip) -> str:
    """The text that a figure shows for a value when a reader points at it."""
    lines = [label(line, 60) for line in tip.lines]
    if not tip.name:
        return "<br>".join(lines)
    first, *others = lines or [""]
    return "<br>".join([f"<b>{label(tip.name, 60)}</b>" + (f", {first}" if first else ""), *others])


def faint(colour: str, share: float = 0.16) -> str:
    """A translucent colour."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{share})"
