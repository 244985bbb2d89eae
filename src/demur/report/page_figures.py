"""The figures of the page: what a pointer can be held on, the same as drawn for paper, and its numbers.

Each figure has its words once, a text alternative, and all of its numbers as a table, so that nothing is in a picture alone.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from demur.core import number_format
from demur.report import tables
from demur.report.cell_view import Entry, direction_labels
from demur.report.figures import Drawing
from demur.report.plotly_base import Interactive
from demur.report.style import diverging, shade
from demur.report.transfer_matrix import Matrix

if TYPE_CHECKING:
    import pandas

_NUMERIC = frozenset({"n", "refusals", "rate", "layer", "coefficient", "value"})


@dataclass(frozen=True)
class Grid:
    """A table of the page: texts row by row, the first column as row headers, with the names of columns that are numbers."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[str] = frozenset()

    @classmethod
    def of(cls, caption: str, frame: "pandas.DataFrame") -> "Grid":
        """A table of texts as the page shows it."""
        rows = tuple(tuple(str(value) for value in row) for row in frame.itertuples(index=False, name=None))
        return cls(caption, tuple(str(name) for name in frame.columns), rows, tables.NUMERIC | _NUMERIC)


@dataclass(frozen=True)
class Tile:
    """A cell of a coloured matrix: what stands in it, in small print below, and its colour."""

    text: str
    detail: str
    fill: str


@dataclass(frozen=True)
class Part:
    """One drawing of a figure, `single`: for one column of a paper. `title` stands above it where there are several."""

    svg: Markup
    title: str
    alternative: str
    single: bool


@dataclass(frozen=True)
class Panel:
    """A figure of the page. `live`: Plotly draws it too. `tables` and `tiles` are its numbers."""

    name: str
    number: int
    title: str
    caption: str
    alternative: str
    live: bool
    drawn: tuple[Part, ...]
    tables: tuple[Grid, ...] = ()
    tiles: tuple[Mapping[str, Any], ...] = field(default=())


def panels(
    sections: Mapping[str, Sequence[str]],
    summary: Mapping[str, Any],
    drawings: Sequence[tuple[Drawing, bytes]],
    live: Sequence[Interactive],
    matrices: Sequence[Matrix],
    judge: str,
) -> dict[str, list[Panel]]:
    """The figures of every section, numbered through the page. A figure that needed several drawings is one."""
    made: dict[str, list[Panel]] = {section: [] for section in sections}
    number = 0
    for section, names in sections.items():
        for name in names:
            parts = [(drawing, svg) for drawing, svg in drawings if _belongs(drawing.name, name)]
            spec = next((one for one in live if one.name == name), None)
            if not parts:
                continue
            number += 1
            title, caption, alternative = _words(name, [drawing for drawing, _ in parts], spec, judge)
            numbers: tuple[Grid, ...] = tuple(
                Grid.of(f"Numbers of: {drawing.title}", _readable_data(drawing))
                for drawing, _ in parts
                if name not in ("transfer", "cosines")
            )
            tiles: list[Mapping[str, Any]] = []
            if name == "transfer":
                tiles = [_tiles(matrix) for matrix in matrices]
            elif name == "cosines":
                tiles = [_cosine_tiles(summary)]
            drawn = tuple(
                Part(
                    _inline(drawing, svg),
                    drawing.title if len(parts) > 1 else "",
                    drawing.alternative,
                    float(drawing.figure.get_size_inches()[0]) < 5,
                )
                for drawing, svg in parts
            )
            made[section].append(Panel(name, number, title, caption, alternative, spec is not None, drawn, numbers, tuple(tiles)))
    return made


def _belongs(drawing: str, name: str) -> bool:
    """Is this drawing the figure, one of its pages, or one of its matrices?"""
    return (
        drawing == name
        or re.fullmatch(rf"{re.escape(name)}-\d+", drawing) is not None
        or (name == "transfer" and drawing.startswith("transfer-"))
    )


def _words(name: str, parts: Sequence[Drawing], spec: Interactive | None, judge: str) -> tuple[str, str, str]:
    title = spec.title if spec is not None else parts[0].title
    if name == "transfer":
        caption = (
            "Refused, by where the direction came from (rows) and which checkpoint it was applied to (columns). The first row is "
            f"the checkpoint left alone, the last are controls; judge {judge}."
        )
    else:
        caption = parts[0].caption
    alternative = " ".join(part.alternative for part in parts)
    return title, caption, alternative


def _inline(drawing: Drawing, svg: bytes) -> Markup:
    """Ids get the figure's name in front, so that several figures can share a document; what only a file needs is cut off."""
    text = svg.decode("utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    prefix = re.sub(r"\W", "-", drawing.name)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'href="#', f'href="#{prefix}-', text)
    text = text.replace("url(#", f"url(#{prefix}-")
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r'<svg\b(.*?)\swidth="([\d.]+)pt"', r"<svg\1", text, count=1, flags=re.DOTALL)
    text = re.sub(
        r'<svg\b(.*?)\sheight="([\d.]+)pt"', r'<svg aria-hidden="true" focusable="false"\1', text, count=1, flags=re.DOTALL
    )
    return Markup(text)


def _readable_data(drawing: Drawing) -> "pandas.DataFrame":
    frame = drawing.data
    if "rate" not in frame.columns:
        return frame.map(lambda value: number_format.number(value, 4) if isinstance(value, float) else value)
    shown = frame[["arm", "instructions", "intervention", "label", "layer", "dose", "n", "refusals"]].astype(object)
    shown = shown.where(shown.notna(), "").rename(columns={"arm": "target", "label": "direction", "dose": "coefficient"})
    shown["rate"] = [f"{100 * rate:.1f} %" for rate in frame["rate"]]
    shown["95 % interval"] = [number_format.interval(bounds) for bounds in zip(frame["ci_low"], frame["ci_high"], strict=True)]
    if "published" in frame.columns:
        shown["published"] = frame["published"]
    return shown


def _tiles(matrix: Matrix) -> dict[str, Any]:
    def tile(entry: Entry | None) -> Tile | None:
        if entry is None:
            return None
        bounds = number_format.interval(entry.interval, number_format.decimals(entry.n))
        return Tile(number_format.percent(entry.rate, entry.n), f"{bounds}, n = {entry.n}", shade(entry.rate))

    rows = [
        (row, row in matrix.controls, [tile(matrix.cells.get((row, column))) for column in matrix.columns]) for row in matrix.rows
    ]
    return {"title": matrix.title, "corner": "Direction from", "columns": matrix.columns, "rows": rows}


def _cosine_tiles(summary: Mapping[str, Any]) -> dict[str, Any]:
    labels = direction_labels(summary)
    shown = [labels.get(name, name) for name in summary["cosines"]["names"]]

    def tile(value: float) -> Tile:
        return Tile(f"{value:.2f}".replace("-", number_format.MINUS), "", diverging(value))

    rows = [
        (name, False, [tile(float(value)) for value in row])
        for name, row in zip(shown, summary["cosines"]["matrix"], strict=True)
    ]
    return {"title": "Cosines between the directions", "corner": "Direction", "columns": shown, "rows": rows}
