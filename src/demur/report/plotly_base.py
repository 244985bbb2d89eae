"""What figures that answer to a pointer have in common: their data, axes, labels, and colours by light and by dark.

A figure is plain data for Plotly, so that the page and a notebook draw the same one. Names are escaped where Plotly would read
markup. Every colour that depends on the paper is one of `INK`, and the page exchanges these for the dark; the others are told
apart by colour-blind readers on both.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from demur.core import number_format
from demur.report.cell_view import BASELINE, INTERVENTIONS, Entry

INK, SOFT, LINE, PAPER, CONTROL = "#1d1d1b", "#5a5a55", "#d9d9d2", "#fdfdfb", "#a8a8a2"
LOW, HIGH, AGAINST = "#f4f4ef", "#56b3e8", "#e6a000"
"""Ends of the heat maps: nothing, much, and much of the opposite."""
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
"""What stands for each of them in the dark."""
ROW = 21
"""Height of a bar or a row of cells with what is around it, in pixels."""
SANS = 'system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif'


@dataclass(frozen=True)
class Interactive:
    """A figure under the name that `Run.figure` knows it by: Plotly's `data` and `layout`, and what is `narrow` on a phone."""

    name: str
    title: str
    data: list[dict[str, Any]]
    layout: dict[str, Any]
    narrow: dict[str, Any] = field(default_factory=dict)

    def titled(self) -> dict[str, Any]:
        """The layout with the title in it, for where no caption stands beside the figure."""
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
    """A name as Plotly shows it to the letter, in lines of about this width."""
    return "<br>".join(escape(line, quote=False) for line in textwrap.wrap(text, width)) or escape(text, quote=False)


def row_height(labels: Sequence[str]) -> int:
    """Room for a row whose label takes several lines, in pixels."""
    return max(ROW, max((15 * (text.count("<br>") + 1) + 4 for text in labels), default=ROW))


def frame(height: int, **more: Any) -> dict[str, Any]:
    """What every layout has in common."""
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


def axis(title: str = "", **more: Any) -> dict[str, Any]:
    """An axis as all figures have it."""
    return {
        "title": {"text": title, "font": {"size": 12}, "standoff": 6},
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
    """The same as a key of a layout: `xaxis`, `xaxis2`, ..."""
    return f"{kind}axis" if index == 0 else f"{kind}axis{index + 1}"


def spread(index: int, count: int, gap: float) -> list[float]:
    """The part of the width or height that panel `index` of `count` takes."""
    size = (1 - gap * (count - 1)) / count
    return [index * (size + gap), index * (size + gap) + size]


def said(entry: Entry) -> str:
    """What a pointer on an entry is told."""
    what = BASELINE if entry.intervention == "none" else f"{label(entry.variant, 60)} {INTERVENTIONS[entry.intervention]}"
    lines = [
        f"<b>{label(entry.target, 60)}</b>, {escape(entry.instructions)} instructions",
        what + (f", {entry.dose}" if entry.dose else ""),
        f"{entry.refusals} of {entry.n} refused, {number_format.percent(entry.rate, entry.n)} "
        f"{number_format.interval(entry.interval)}",
    ]
    if entry.change is not None:
        tested = "" if entry.p_holm is None else f" (Holm p {number_format.p_value(entry.p_holm)})"
        lines.append(f"change {number_format.points(entry.change)} points{escape(tested)}")
    return "<br>".join(lines)
