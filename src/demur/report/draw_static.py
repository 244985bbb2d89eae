"""Static figures for papers: draws each figure specification with matplotlib, one or two columns wide."""

import math
import textwrap
from collections.abc import Sequence
from typing import Any, assert_never

from matplotlib import rc_context
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle

from demur.core.number_format import DASH
from demur.report.figure_contents import (
    Band,
    Bar,
    BarRow,
    Bars,
    Content,
    HeatMap,
    HeatMaps,
    LayerLines,
    Line,
    PointGroup,
    PointLook,
    PointStrips,
    RateBand,
)
from demur.report.large_runs.evenly_spaced import axis_ticks
from demur.report.style import (
    DOUBLE,
    GREY,
    LIGHT,
    NEUTRAL,
    SINGLE,
    STYLE,
    diverging,
    group_offsets,
    scattered,
    settled,
    shade,
)

# Any: keyword arguments of matplotlib.
_TURNED: dict[str, Any] = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}

CROWDED = 24
"""A heat map with more columns gets smaller names and thinner gaps."""

_DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)), "-.")


def draw(content: Content) -> Figure:
    """A static figure.

    Args:
        content: what it shows.

    Returns:
        The figure, laid out; `style.save` writes it.
    """
    with rc_context(STYLE):
        match content:
            case Bars():
                figure = _draw_bars(content)
            case HeatMaps():
                figure = _draw_maps(content.maps)
            case LayerLines():
                figure = _draw_lines(content)
            case PointStrips():
                figure = _draw_strips(content)
            case _:
                assert_never(content)
        return settled(figure)


def _draw_bars(bars: Bars) -> Figure:
    """A grid of axes, with a row for each block and a column for each panel."""
    counts = [len(block.rows) for block in bars.blocks]
    titled = any(block.title for block in bars.blocks)
    height = 0.5 + sum(0.19 * count + (0.36 if titled else 0.2) for count in counts)
    layout = ConstrainedLayoutEngine(h_pad=0.03, w_pad=0.03, wspace=0.03)
    figure = Figure(figsize=(DOUBLE if len(bars.panels) > 1 else SINGLE, height), layout=layout)
    grid = figure.subplots(len(counts), len(bars.panels), squeeze=False, sharex=True, height_ratios=counts)
    for row, block in enumerate(bars.blocks):
        for column, title in enumerate(bars.panels):
            axes = grid[row][column]
            _bar_panel(axes, block.rows, column, bars.full)
            if block.title and column == 0:
                _heading(axes, block.title)
            if row == len(counts) - 1:
                axes.set_xlabel(title)
            else:
                _without_name(axes.xaxis)
            _without_name(axes.yaxis)
    return figure


def _bar_panel(axes: Any, rows: Sequence[BarRow], column: int, full: float) -> None:
    measured: list[tuple[int, Bar]] = []
    for y, row in enumerate(rows):
        bar = row.bars[column]
        if bar is None:
            axes.text(0.015 * full, y, "not measured", va="center", color=NEUTRAL, fontsize=6.5)
            continue
        measured.append((y, bar))
        axes.text(max(bar.high, bar.value) + full * 1.8 / 100, y, bar.text, va="center", fontsize=6.5)
    if measured:
        _rate_bands(axes, [(y, band) for y, bar in measured for band in bar.bands])
        _bars(axes, [y for y, _ in measured], [bar for _, bar in measured])
    # On the bar's upper edge, where it does not cover the number at the bar's end.
    marks = [(mark.value, y - 0.36, mark.filled) for y, bar in measured for mark in bar.marks]
    for filled, face in ((True, "black"), (False, "white")):
        if chosen := [(x, y) for x, y, alike in marks if alike is filled]:
            axes.plot(*zip(*chosen, strict=True), "D", markersize=3.4, mfc=face, mec="black", mew=0.7)
    axes.set_ylim(len(rows) - 0.45, -0.55)
    axes.set_xlim(0, full * 116 / 100)
    axes.set_xticks([full * quarter / 4 for quarter in range(5)])
    axes.grid(axis="x", color=LIGHT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_yticks(range(len(rows)), [_wrapped(row.label, 34) if column == 0 else "" for row in rows])
    axes.tick_params(axis="y", length=0)


def _heading(axes: Any, title: str) -> None:
    """Writes a title above a panel that has nothing else there. Without `y`, matplotlib measures all labels for its place."""
    axes.set_title(title, loc="left", fontweight="bold", pad=3, y=1.0)


def _without_name(axis: Any) -> None:
    """Spares matplotlib the search for a place for the name of this axis, which has none: a tenth of a large figure's time."""
    axis.set_label_coords(0, 0)


def _rate_bands(axes: Any, bands: Sequence[tuple[int, RateBand]]) -> None:
    """Pale bands over the whole height of their rows, so that a bar, which is less high, does not hide them."""
    if not bands:
        return
    places = [y for y, _ in bands]
    low, high = [band.low for _, band in bands], [band.high for _, band in bands]
    width = [end - start for start, end in zip(low, high, strict=True)]
    axes.barh(places, width, left=low, height=1.0, color=NEUTRAL, alpha=0.16, linewidth=0)
    middle = [band.middle for _, band in bands]
    axes.vlines(middle, [y - 0.5 for y in places], [y + 0.5 for y in places], color=NEUTRAL, linewidth=0.7)


def _bars(axes: Any, places: Sequence[int], bars: Sequence[Bar]) -> None:
    # All bars of a panel are drawn at once. Drawing them one by one took a fifth of the time of a large study's report.
    values = [bar.value for bar in bars]
    axes.barh(
        places,
        values,
        height=0.72,
        linewidth=0,
        color=[GREY if bar.control else bar.colour or NEUTRAL for bar in bars],
        hatch=["/////" if bar.control else "" for bar in bars],
        edgecolor="white",
    )
    # Rounding can put a bound on the wrong side of the value, but matplotlib refuses negative lengths.
    below, above = [max(bar.value - bar.low, 0) for bar in bars], [max(bar.high - bar.value, 0) for bar in bars]
    axes.errorbar(values, places, xerr=[below, above], fmt="none", ecolor="black", elinewidth=0.8, capsize=1.6)


def _draw_maps(maps: Sequence[HeatMap]) -> Figure:
    """Heat maps below each other, drawn as vector rectangles. The figure has two columns' width if any map is wide, else one."""
    wide = any(len(one.columns) > 6 or len(one.rows) > 16 for one in maps)
    height = sum(0.75 + _map_row(one) * len(one.rows) for one in maps)
    figure = Figure(figsize=(DOUBLE if wide else SINGLE, height), layout="constrained")
    grid = figure.subplots(len(maps), 1, squeeze=False, height_ratios=[len(one.rows) for one in maps])
    for one, axes in zip(maps, grid[:, 0], strict=True):
        if len(maps) > 1:
            _heading(axes, one.title)
        _map_panel(axes, one, wide=wide)
    return figure


def _map_row(one: HeatMap) -> float:
    """The height of a row in inches. The cells of a large map without values are about square."""
    return 0.34 if one.written else 0.2 if len(one.columns) <= CROWDED else max(0.08, 6 / len(one.columns))


def _map_panel(axes: Any, one: HeatMap, *, wide: bool) -> None:
    colour, crowded = diverging if one.signed else shade, len(one.columns) > CROWDED
    fills: list[str] = []
    for y, row in enumerate(one.tiles):
        for x, tile in enumerate(row):
            fill = LIGHT if tile is None else colour(tile.value)
            fills.append(fill)
            if not crowded:
                axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=fill, edgecolor="white", linewidth=1))
            if one.written:
                lines = [DASH] if tile is None else [tile.text, *([tile.below] if tile.below and len(one.columns) <= 8 else ())]
                axes.text(x, y, "\n".join(lines), ha="center", va="center", fontsize=6.5, linespacing=1.15)
    if crowded:  # thousands of single patches take seconds
        places = [(x - 0.5, y - 0.5) for y, row in enumerate(one.tiles) for x in range(len(row))]
        squares = [[(x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1)] for x, y in places]
        axes.add_collection(PolyCollection(squares, facecolors=fills, edgecolors="white", linewidths=0.3))
    for rule in one.rules:
        axes.axhline(rule - 0.5, color="white", linewidth=2 if crowded else 4)
    axes.set_xlim(-0.5, len(one.columns) - 0.5)
    axes.set_ylim(len(one.rows) - 0.5, -0.5)
    long = max(map(len, one.columns)) * len(one.columns) > (90 if wide else 36)
    turned = _TURNED if long else {}
    if crowded:
        turned = {"rotation": 90, "fontsize": min(7.0, 300 / len(one.columns))}
    axes.set_xticks(range(len(one.columns)), [_wrapped(name, 28) for name in one.columns], **turned)
    small: dict[str, float] = {"fontsize": min(7.0, 300 / len(one.rows))} if crowded else {}
    axes.set_yticks(range(len(one.rows)), [name if crowded else _wrapped(name, 26) for name in one.rows], **small)
    axes.set_ylabel(one.row_title)
    axes.set_xlabel(one.column_title)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _draw_lines(lines: LayerLines) -> Figure:
    figure = Figure(figsize=(DOUBLE, lines.inches), layout="constrained")
    panels = figure.subplots(len(lines.panels), 1, squeeze=False, sharex=True)[:, 0]
    for index, (axes, panel) in enumerate(zip(panels, lines.panels, strict=True)):
        share = panel.scale == "share"
        for band in panel.bands:
            _band(axes, band, lines, 100 if share else 1)
        for line in panel.lines:
            _line(axes, line, lines, 100 if share else 1)
        if panel.scale == "log":
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")  # without mathematical notation
        elif share:
            axes.set_ylim(bottom=0, top=None if panel.top is None else 103 * panel.top)
        for place in lines.marked:
            axes.axvline(place, color=NEUTRAL, linewidth=0.7, linestyle=":")
        axes.grid(axis="y", color=LIGHT, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set_ylabel((panel.short_title or panel.title) + (" (%)" if share else ""))
        if panel.heading:
            axes.set_title(panel.heading, loc="left", fontweight="bold", pad=3)
        if lines.horizontal:
            ticks = axis_ticks(lines.horizontal, lines.names)
            long = sum(len(text) for _, text in ticks) > 80
            axes.set_xticks(*zip(*ticks, strict=True), **(_TURNED if long else {}))
        if index == len(lines.panels) - 1:
            axes.set_xlabel(lines.axis)
    handles, labels = panels[0].get_legend_handles_labels()
    named = dict(zip(labels, handles, strict=True))
    figure.legend(named.values(), named, loc="outside upper left", ncols=min(3, max(1, len(named))), frameon=False, fontsize=7)
    return figure


def _line(axes: Any, line: Line, lines: LayerLines, factor: int) -> None:
    # A value that is not defined leaves a gap.
    values = [float("nan") if value is None else factor * value for value in line.values]
    places = list(lines.at(len(line.values)))
    if line.joined:
        there = [(place, value) for place, value in zip(places, values, strict=True) if not math.isnan(value)]
        places, values = [place for place, _ in there], [value for _, value in there]
    axes.plot(
        places,
        values,
        linewidth=0.6 if line.thin else 1.1,
        marker=".",
        markersize=2 if line.thin else 5 if lines.horizontal else 3,
        label=line.name,
        color=line.colour,
        linestyle=_DASHES[line.dash % len(_DASHES)],
        zorder=1.8 if line.thin else 2,
    )


def _band(axes: Any, band: Band, lines: LayerLines, factor: int) -> None:
    there = [(at, pair) for at, pair in zip(lines.at(len(band.bounds)), band.bounds, strict=True) if pair is not None]
    places, low, high = [at for at, _ in there], [factor * pair[0] for _, pair in there], [factor * pair[1] for _, pair in there]
    label = band.name if band.in_legend else None
    axes.fill_between(places, low, high, color=band.colour or NEUTRAL, alpha=0.16, linewidth=0, label=label)


def _draw_strips(strips: PointStrips) -> Figure:
    names = [strip.name for strip in strips.strips]
    figure = Figure(figsize=(DOUBLE, 0.7 + 0.75 * len(names)), layout="constrained")
    axes = figure.subplots(1, 1, squeeze=False, sharex=True)[0, 0]
    named = set[str]()
    for index, strip in enumerate(strips.strips):
        for group, offset in zip(strip.groups, group_offsets(len(strip.groups)), strict=True):
            for look in strips.looks:
                _points(axes, group, look, index + offset, 0.6 / len(strip.groups), named)
    for at in strips.lines:
        axes.axvline(at, color=NEUTRAL, linewidth=0.7, linestyle=":", zorder=0)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(strips.axis)
    figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=7)
    return figure


def _points(axes: Any, group: PointGroup, look: PointLook, middle: float, reach: float, named: set[str]) -> None:
    """The points of one group with one look. A name that is already in the legend is not added again."""
    chosen = [(place, point) for place, point in enumerate(group.points) if point.look == look.name]
    if not chosen and look.optional:
        return
    colours = {
        "filled": {"facecolors": group.colour, "edgecolors": group.colour},
        "hollow": {"facecolors": "none", "edgecolors": group.colour},
        "cross": {"color": group.colour},
    }[look.look]
    name = f"{group.name}, {look.name}"
    axes.scatter(
        [point.value for _, point in chosen],
        [middle + reach * (scattered(place) - 0.5) for place, _ in chosen],
        s=9,
        linewidths=0.7,
        marker="x" if look.look == "cross" else "o",
        label=None if name in named else name,
        **colours,
    )
    named.add(name)


def _wrapped(label: str, width: int) -> str:
    return "\n".join(textwrap.wrap(label, width)) or label
