"""Drawings inside the page: each figure specification as SVG text, for paper and for browsers without scripts.

They are made in milliseconds and need no drawing library, so that a page is written at once. The files in `figures/` are drawn
with matplotlib (`draw_static`), which takes seconds.
"""

from collections.abc import Sequence
from typing import assert_never

from markupsafe import Markup

from demur.core.number_format import DASH
from demur.report.figure_contents import Bar, Bars, Content, HeatMap, HeatMaps, LayerLines, PointStrips, Tile
from demur.report.pictures.inline_lines import draw_lines, draw_strips
from demur.report.pictures.svg_elements import LETTER, LINE, NARROW, WIDE, drawing, element, lines_of, paragraph, rule, words
from demur.report.style import diverging, shade

_ROW, _TILE = 20.0, 30.0


def inline_svg(content: Content) -> Markup:
    """The drawing of a figure as an element of the page.

    Args:
        content: what it shows.

    Returns:
        An `svg` element. Every text in it is escaped.
    """
    match content:
        case Bars():
            return Markup(_bars(content))
        case HeatMaps():
            return Markup(_maps(content.maps))
        case LayerLines():
            return Markup(draw_lines(content))
        case PointStrips():
            return Markup(draw_strips(content))
        case _:
            assert_never(content)


def _bars(bars: Bars) -> str:
    width = WIDE if len(bars.panels) > 1 else NARROW
    labels = {row: lines_of(row.label, 34) for block in bars.blocks for row in block.rows}
    left = min(250.0, 14 + LETTER * max((len(line) for lines in labels.values() for line in lines), default=0))
    gap = 14.0
    panel = (width - left - gap * len(bars.panels)) / len(bars.panels)
    starts = [left + index * (panel + gap) for index in range(len(bars.panels))]
    # The number at the end of a full bar needs room inside its panel.
    scale = panel / (bars.full * 1.16)
    parts, y = [], 4.0
    for block in bars.blocks:
        if block.title:
            parts.append(words(0, y + _ROW / 2, block.title, kind="bold"))
            y += _ROW
        for row in block.rows:
            height = max(_ROW, LINE * len(labels[row]) + 6)
            parts.append(paragraph(left - 8, y + height / 2, labels[row], "end"))
            parts += [_bar(bar, start, y + height / 2, scale) for bar, start in zip(row.bars, starts, strict=True)]
            y += height
        y += 6
    behind = []
    for start, title in zip(starts, bars.panels, strict=True):
        for quarter in range(5):
            x = start + scale * bars.full * quarter / 4
            behind += [rule(x, 0, x, y), words(x, y + 9, f"{bars.full * quarter / 4:g}", "middle", "soft")]
        behind.append(words(start, y + 9 + LINE + 3, title, kind="soft"))
    return drawing(width, y + 2 * LINE + 14, [*behind, *parts])


def _bar(bar: Bar | None, start: float, y: float, scale: float) -> str:
    if bar is None:
        return words(start + 4, y, "not measured", kind="soft")
    end, low, high = (start + scale * max(value, 0) for value in (bar.value, bar.low, bar.high))
    behind = []
    for band in bar.bands:
        left, middle, right = (start + scale * value for value in (band.low, band.middle, band.high))
        behind += [
            element("rect", x=left, y=y - 10, width=right - left, height=20, class_="band"),
            rule(middle, y - 10, middle, y + 10, "middle"),
        ]
    colour = {"class_": "control"} if bar.control else {"fill": bar.colour} if bar.colour else {"class_": "neutral"}
    parts = [
        *behind,
        element("rect", x=start, y=y - 7, width=end - start, height=14, **colour),
        rule(low, y, high, y, "whisker"),
        rule(low, y - 2.5, low, y + 2.5, "whisker"),
        rule(high, y - 2.5, high, y + 2.5, "whisker"),
        words(max(end, high) + 5, y, bar.text),
    ]
    for mark in bar.marks:
        x, top = start + scale * mark.value, y - 7
        points = f"{x:.1f},{top - 4.5:.1f} {x + 4.5:.1f},{top:.1f} {x:.1f},{top + 4.5:.1f} {x - 4.5:.1f},{top:.1f}"
        parts.append(element("polygon", points=points, class_="mark" if mark.filled else "mark hollow"))
    return "".join(parts)


def _maps(maps: Sequence[HeatMap]) -> str:
    parts, y, width = list[str](), 0.0, NARROW
    for one in maps:
        labels = [lines_of(name + (" (control)" if name in one.controls else ""), 30) for name in one.rows]
        left = min(220.0, 14 + LETTER * max((len(line) for lines in labels for line in lines), default=0))
        tile = max(26.0 if not one.written else 46.0, min(110.0, (WIDE - left) / max(len(one.columns), 1)))
        width = max(width, left + tile * len(one.columns))
        heads = [lines_of(name, max(6, int(tile / LETTER))) for name in one.columns]
        if len(maps) > 1:
            parts.append(words(0, y + 10, one.title, kind="bold"))
            y += 22
        tallest = max(map(len, heads), default=1)
        y += LINE * tallest + 4
        for index, lines in enumerate(heads):
            parts.append(paragraph(left + tile * (index + 0.5), y - 4 - LINE * len(lines) / 2, lines, "middle", "soft"))
        for lines, row in zip(labels, one.tiles, strict=True):
            parts.append(paragraph(left - 8, y + _TILE / 2, lines, "end"))
            parts += [_tile(each, left + tile * index, y, tile, one) for index, each in enumerate(row)]
            y += _TILE
        y += 16
    return drawing(width, y, parts)


def _tile(tile: Tile | None, x: float, y: float, width: float, one: HeatMap) -> str:
    place = {"x": x + 1, "y": y + 1, "width": width - 2, "height": _TILE - 2}
    middle = x + width / 2, y + _TILE / 2
    if tile is None:
        return element("rect", class_="missing", **place) + words(*middle, DASH, "middle", "soft")
    fill = diverging(tile.value) if one.signed else shade(tile.value)
    return element("rect", fill=fill, **place) + (words(*middle, tile.text, "middle", "tile") if one.written else "")
