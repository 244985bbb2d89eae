"""A figure or table of the report with its words and numbers, as a section returns it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from demur.report.figure_contents import Content

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Sheet:
    """A figure, or a part of a large figure, that is one static file.

    Attributes:
        name: the file's name without its ending.
        title: what it shows.
        caption: how to read it.
        alternative: a text with the most important numbers, for readers who cannot see the figure.
        data: its numbers with all digits.
        content: what is drawn.
        readable: the numbers as the page shows them. If this is None, the page shows `data` with rounded numbers.
    """

    name: str
    title: str
    caption: str
    alternative: str
    data: "pandas.DataFrame"
    content: Content
    readable: "pandas.DataFrame | None" = None


@dataclass(frozen=True)
class FigureSpec:
    """A figure of the page.

    Attributes:
        name: the name by which `Run.figure` finds it.
        title: what it shows.
        caption: how to read it.
        content: what is drawn on the page.
        sheets: the same for static files; a large figure is split into several.
    """

    name: str
    title: str
    caption: str
    content: Content
    sheets: tuple[Sheet, ...]

    @classmethod
    def of(cls, sheet: Sheet) -> "FigureSpec":
        """A figure that is one static file."""
        return cls(sheet.name, sheet.title, sheet.caption, sheet.content, (sheet,))


@dataclass(frozen=True)
class TableSpec:
    """A table of the report: `tables/NAME.csv` and `tables/NAME.tex`.

    Attributes:
        name: the files' name without its ending.
        caption: what it contains.
        data: the numbers with all digits, for the CSV file.
        readable: the table with labels and rounded numbers, for LaTeX and the page.
        numeric: further columns of `readable` that are aligned to the right.
        on_page: whether the page shows it with its section.
    """

    name: str
    caption: str
    data: "pandas.DataFrame"
    readable: "pandas.DataFrame"
    numeric: frozenset[str] = frozenset()
    on_page: bool = True
