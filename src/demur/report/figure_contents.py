"""What can be drawn: bars, heat maps, lines over layers or doses, and strips of points, as plain values.

A section of the report describes what each of its figures shows with the values below. `draw_plotly` draws them for the page and
for notebooks, `draw_static` as files for papers, `pictures.inline_svg` for the page on paper and without scripts. These modules
and the sections do not depend on each other.

Texts are plain text; the drawing modules escape them. Colours are six hex digits. `selects` is the part of the page's address
that shows the completions behind a value (`sections.page_address`); a click on the value opens it. It is empty for none.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Tip:
    """The text that a figure shows for a value when a reader points at it.

    Attributes:
        name: the first words, in bold; empty for none.
        lines: the lines of the text; the first one follows the name.
    """

    name: str = ""
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mark:
    """A diamond on a bar: a value from elsewhere.

    Attributes:
        value: its place on the axis.
        filled: whether it is filled. A hollow mark may not be comparable with the bar.
        tip: the text for it.
    """

    value: float
    filled: bool
    tip: Tip


@dataclass(frozen=True)
class RateBand:
    """A pale band behind a bar: the range of many controls, with their median as a thin line.

    Attributes:
        low: where the band begins, in the unit of the axis.
        middle: the place of the line.
        high: where the band ends.
        tip: the text for it.
    """

    low: float
    middle: float
    high: float
    tip: Tip


@dataclass(frozen=True)
class Bar:
    """One bar with its interval.

    Attributes:
        value: its length, in the unit of the axis.
        low: the lower end of its interval.
        high: the upper end of its interval.
        text: the value as text, written at the end of the bar.
        tip: the text for it.
        colour: its colour, None for a neutral one.
        control: whether it is a control, which is grey and hatched.
        marks: values with which it is compared.
        bands: the ranges of controls with which it is compared.
        selects: the address of its completions.
    """

    value: float
    low: float
    high: float
    text: str
    tip: Tip
    colour: str | None = None
    control: bool = False
    marks: tuple[Mark, ...] = ()
    bands: tuple[RateBand, ...] = ()
    selects: str = ""


@dataclass(frozen=True)
class BarRow:
    """One label with a bar in each panel, None if nothing was measured."""

    label: str
    bars: tuple[Bar | None, ...]


@dataclass(frozen=True)
class BarBlock:
    """Rows under one title, which is empty if there is only one block."""

    title: str
    rows: tuple[BarRow, ...]


@dataclass(frozen=True)
class Bars:
    """Horizontal bars in blocks, so that long names stay readable.

    Attributes:
        panels: the title of each panel's axis; panels stand next to each other.
        blocks: the blocks, from top to bottom.
        full: the value at which the axis ends.
    """

    panels: tuple[str, ...]
    blocks: tuple[BarBlock, ...]
    full: float = 100.0


@dataclass(frozen=True)
class Tile:
    """One cell of a heat map.

    Attributes:
        value: what its colour shows.
        text: the value as text.
        detail: what a table adds in small print.
        below: a second line for a drawing that has room for it.
        tip: the text for it; None for the names of row and column and the value.
        selects: the address of its completions.
    """

    value: float
    text: str
    detail: str = ""
    below: str = ""
    tip: Tip | None = None
    selects: str = ""


@dataclass(frozen=True)
class HeatMap:
    """Coloured cells, rows against columns.

    Attributes:
        title: the title of its table.
        rows: names of rows, from top to bottom.
        columns: names of columns.
        tiles: the cells row by row, None if nothing was measured.
        signed: whether values go from -1 to 1; else from 0 to 1.
        written: whether the values are written into the cells of a drawing.
        heading: the lines above it where several are drawn together, the first one in bold.
        row_title: what the rows are, in the drawing.
        column_title: what the columns are, in the drawing.
        corner: what the rows are, in the table.
        controls: names of the rows that are controls.
        rules: rows above which a white line is drawn.
    """

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    tiles: tuple[tuple[Tile | None, ...], ...]
    signed: bool = False
    written: bool = True
    heading: tuple[str, ...] = ()
    row_title: str = ""
    column_title: str = ""
    corner: str = ""
    controls: frozenset[str] = frozenset()
    rules: tuple[int, ...] = ()


@dataclass(frozen=True)
class HeatMaps:
    """Heat maps that are shown together."""

    maps: tuple[HeatMap, ...]


@dataclass(frozen=True)
class Line:
    """A line with one value for each place on the horizontal axis.

    Attributes:
        name: its name in the legend. Lines of one name are in the legend once.
        values: one value for each place, None if it is not defined.
        colour: its colour.
        dash: the number of its dash pattern, from 0 (solid) to 3.
        notes: the text after each value when a reader points at it, such as its interval.
        thin: whether it is in the background, such as the line of a control.
        selects: the address of the completions of each value.
        joined: whether the line goes on across places without a value; otherwise there is a gap.
    """

    name: str
    values: tuple[float | None, ...]
    colour: str
    dash: int = 0
    notes: tuple[str, ...] = ()
    thin: bool = False
    selects: tuple[str, ...] = ()
    joined: bool = False


@dataclass(frozen=True)
class Band:
    """A pale area with one interval for each place on the horizontal axis.

    Attributes:
        name: its name; a band and a line with the same name belong together.
        bounds: lower and upper end for each place, None if there is none.
        colour: its colour, None for a neutral one.
        in_legend: whether the legend names it.
    """

    name: str
    bounds: tuple[tuple[float, float] | None, ...]
    colour: str | None = None
    in_legend: bool = False


@dataclass(frozen=True)
class LinePanel:
    """Lines over one horizontal axis with one vertical axis.

    Attributes:
        title: the title of the vertical axis.
        lines: the lines.
        bands: the bands behind them.
        unit: the unit after a value when a reader points at it.
        scale: the scale of the vertical axis; `share` writes fractions in per cent, from 0.
        places: the largest number of decimals on the axis; None for as many as needed.
        short_title: the title for a drawing with little room; empty to use `title`.
        heading: a line above the panel, empty for none.
        top: the value at which the axis ends, None for the largest one.
    """

    title: str
    lines: tuple[Line, ...]
    bands: tuple[Band, ...] = ()
    unit: str = ""
    scale: Literal["linear", "log", "share"] = "linear"
    places: int | None = None
    short_title: str = ""
    heading: str = ""
    top: float | None = None


@dataclass(frozen=True)
class LayerLines:
    """Panels below each other over one horizontal axis: the layers, or other places such as coefficients.

    Attributes:
        panels: the panels, from top to bottom. The first one's lines make the legend.
        marked: places with a dotted line.
        inches: the height on paper.
        pixels: the height on the page.
        horizontal: the places on the horizontal axis; empty for the layers, counted from 0.
        axis: what the places are.
        names: a name for each place of `horizontal`, which stands there instead of the number; empty for none.
    """

    panels: tuple[LinePanel, ...]
    marked: tuple[float, ...] = ()
    inches: float = 3.4
    pixels: int = 480
    horizontal: tuple[float, ...] = ()
    axis: str = "layer"
    names: tuple[str, ...] = ()

    def at(self, count: int) -> tuple[float, ...]:
        """The places of a line with this many values."""
        return self.horizontal or tuple(range(count))


@dataclass(frozen=True)
class PointLook:
    """How points of one class look.

    Attributes:
        name: the name of the class in the legend.
        look: the look.
        optional: whether the class is left out of the legend if it has no points.
    """

    name: str
    look: Literal["filled", "hollow", "cross"]
    optional: bool = False


@dataclass(frozen=True)
class Point:
    """One point.

    Attributes:
        value: its place on the axis.
        look: the name of its `PointLook`.
        tip: the text for it.
        instruction: the instruction whose completions a click shows, such as `harmful 3`; empty for none.
    """

    value: float
    look: str
    tip: str
    instruction: str = ""


@dataclass(frozen=True)
class PointGroup:
    """Points of one colour with one name in the legend."""

    name: str
    colour: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class PointStrip:
    """One row of points: its groups lie below each other."""

    name: str
    groups: tuple[PointGroup, ...]


@dataclass(frozen=True)
class PointStrips:
    """Single values on one axis, in rows.

    Attributes:
        strips: the rows, from top to bottom.
        looks: the classes of points.
        axis: the title of the axis.
        narrow_axis: its title on a phone, in lines.
        lines: values marked by a dotted line.
    """

    strips: tuple[PointStrip, ...]
    looks: tuple[PointLook, ...]
    axis: str
    narrow_axis: tuple[str, ...] = ()
    lines: tuple[float, ...] = ()


Content = Bars | HeatMaps | LayerLines | PointStrips
"""Everything that can be drawn."""
