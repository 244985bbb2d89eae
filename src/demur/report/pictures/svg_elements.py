"""Parts that all drawings inside the page share: elements, texts, legends and axes as SVG text.

Colours that depend on the theme are classes of the page's style sheet (`soft`, `rule`), so one drawing fits the light page, the
dark page and paper. A unit is a pixel at the drawing's full width.
"""

import math
import textwrap
from collections.abc import Sequence
from html import escape

WIDE, NARROW = 720.0, 440.0
"""Widths of drawings."""
LETTER = 6.1
"""Mean width of a letter at the usual size. A text's width is not known before a browser draws it."""
LINE = 13.0
"""The height of a line of text."""


def element(tag: str, content: str = "", /, **attributes: str | float) -> str:
    """An element. `_` in names of attributes stands for `-`; `class_` for `class`; content is SVG text, not escaped."""
    written = "".join(f' {name.rstrip("_").replace("_", "-")}="{_value(value)}"' for name, value in attributes.items())
    return f"<{tag}{written}>{content}</{tag}>" if content else f"<{tag}{written}/>"


def _value(value: str | float) -> str:
    return escape(value) if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")


def words(x: float, y: float, text: str, anchor: str = "start", kind: str = "") -> str:
    """A text in one line, with its middle at the height `y`. `kind` is a class of the style sheet."""
    more = {"class_": kind} if kind else {}
    # Not `dominant-baseline`, which printers and converters of SVG often ignore.
    return element("text", escape(text, quote=False), x=x, y=y + 3.8, text_anchor=anchor, **more)


def lines_of(text: str, width: int) -> list[str]:
    """A label in lines of at most this many letters where its words allow it."""
    return textwrap.wrap(text, width) or [text]


def paragraph(x: float, y: float, lines: Sequence[str], anchor: str = "start", kind: str = "") -> str:
    """Lines of text around the height `y`."""
    top = y - LINE * (len(lines) - 1) / 2
    return "".join(words(x, top + LINE * index, line, anchor, kind) for index, line in enumerate(lines))


def rule(x1: float, y1: float, x2: float, y2: float, kind: str = "rule") -> str:
    """A straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=kind)


def drawing(width: float, height: float, parts: Sequence[str]) -> str:
    """The whole drawing. It is as wide as its place on the page, and its words are told by the element around it."""
    return element(
        "svg",
        "".join(parts),
        viewBox=f"0 0 {width:.0f} {math.ceil(height)}",
        width=width,
        class_="chart",
        aria_hidden="true",
        focusable="false",
    )


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers between two bounds, 1, 2 or 5 times a power of ten apart."""
    if not high > low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((factor * power for factor in (1, 2, 5) if factor * power >= rough), 10 * power)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def legend(entries: Sequence[tuple[str, str]], width: float) -> tuple[str, float]:
    """Names beside their samples, in as many rows as they need.

    Args:
        entries: the sample (SVG text, drawn around the origin, 20 wide) and the name of each entry.
        width: the width of the drawing.

    Returns:
        The legend at the top of the drawing, and its height.
    """
    parts, x, y = [], 0.0, LINE
    for sample, name in entries:
        needed = 30 + LETTER * len(name) + 14
        if x and x + needed > width:
            x, y = 0.0, y + LINE + 4
        parts.append(element("g", sample, transform=f"translate({x + 12:.1f} {y:.1f})") + words(x + 28, y, name))
        x += needed
    return "".join(parts), (y + LINE if entries else 0.0)
