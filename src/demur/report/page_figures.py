"""The figures of the page. Each has an interactive drawing, a static drawing, and its numbers as a table.

Each figure also has a text alternative, so that no information is only in a picture.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from demur.core import number_format
from demur.report import result_tables
from demur.report.cell_view import LabelShares
from demur.report.figure_contents import HeatMap, HeatMaps
from demur.report.figure_spec import FigureSpec, Sheet
from demur.report.pictures.inline_svg import inline_svg
from demur.report.style import diverging, shade

if TYPE_CHECKING:
    import pandas

_NUMERIC = frozenset({"n", "refusals", "rate", "layer", "coefficient", "value"})


@dataclass(frozen=True)
class Grid:
    """A table of the page. `rows` are texts, and the first of each row is its header. `numeric` names the columns of numbers.

    `stacks` are the kinds of answers behind each row, which the page shows as a stacked bar and in words; empty for none.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[str] = frozenset()
    stacks: tuple[LabelShares | None, ...] = ()

    @property
    def stacked(self) -> dict[str, tuple[str, ...]]:
        """Each judge of the stacks with its labels, in the order of their colours."""
        return {one.judge: tuple(label for label, _ in one.counts) for one in self.stacks if one is not None}

    @classmethod
    def of(cls, caption: str, frame: "pandas.DataFrame", numeric: frozenset[str] = frozenset()) -> "Grid":
        """A table of texts as the page shows it; `numeric` are further columns of numbers."""
        rows = tuple(tuple(str(value) for value in row) for row in frame.itertuples(index=False, name=None))
        return cls(caption, tuple(str(name) for name in frame.columns), rows, result_tables.NUMERIC | _NUMERIC | numeric)


@dataclass(frozen=True)
class ColouredCell:
    """A cell of a coloured table: its text, a detail in small print, and its colour."""

    text: str
    detail: str
    fill: str


@dataclass(frozen=True)
class ColouredTable:
    """The numbers of a heat map. Each row has a name, whether it is a control, and its cells, None if nothing was measured."""

    title: str
    corner: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, bool, tuple[ColouredCell | None, ...]], ...]


@dataclass(frozen=True)
class Drawing:
    """One drawing of a figure. `title` is empty for the only one."""

    svg: Markup
    title: str
    alternative: str


@dataclass(frozen=True)
class Panel:
    """A figure of the page. `tables` and `tiles` have its numbers."""

    name: str
    number: int
    title: str
    caption: str
    alternative: str
    drawn: tuple[Drawing, ...]
    tables: tuple[Grid, ...] = ()
    tiles: tuple[ColouredTable, ...] = ()


def panel(figure: FigureSpec, number: int) -> Panel:
    """A figure with its number on the page.

    Args:
        figure: what it shows.
        number: its place among the figures of the page, from 1.

    Returns:
        The figure as the template needs it.
    """
    several = len(figure.sheets) > 1
    parts = tuple(
        Drawing(inline_svg(sheet.content), sheet.title if several else "", sheet.alternative) for sheet in figure.sheets
    )
    alternative = " ".join(sheet.alternative for sheet in figure.sheets)
    maps = figure.content.maps if isinstance(figure.content, HeatMaps) else ()
    grids = [] if maps else [Grid.of(f"Numbers of: {sheet.title}", readable_numbers(sheet)) for sheet in figure.sheets]
    tiles = tuple(_coloured(one) for one in maps)
    return Panel(figure.name, number, figure.title, figure.caption, alternative, parts, tuple(grids), tiles)


def readable_numbers(sheet: Sheet) -> "pandas.DataFrame":
    """The numbers of a sheet as the page shows them."""
    if sheet.readable is not None:
        return sheet.readable
    return sheet.data.map(lambda value: number_format.number(value, 4) if isinstance(value, float) else value)


def _coloured(one: HeatMap) -> ColouredTable:
    colour = diverging if one.signed else shade
    rows = tuple(
        (
            name,
            name in one.controls,
            tuple(None if tile is None else ColouredCell(tile.text, tile.detail, colour(tile.value)) for tile in row),
        )
        for name, row in zip(one.rows, one.tiles, strict=True)
    )
    return ColouredTable(one.title, one.corner, one.columns, rows)
