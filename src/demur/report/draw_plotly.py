"""Interactive figures: draws each figure specification as data for Plotly, for the page and for notebooks."""

from collections.abc import Sequence
from html import escape
from typing import assert_never

from demur.core.number_format import DASH
from demur.report.figure_contents import Bar, BarRow, Bars, HeatMap, HeatMaps, LayerLines, PointStrips, RateBand
from demur.report.figure_spec import FigureSpec
from demur.report.plotly_base import (
    AGAINST,
    CONTROL,
    HIGH,
    INK,
    LOW,
    PAPER,
    ROW,
    SOFT,
    Interactive,
    Json,
    axis,
    faint,
    frame,
    label,
    layout_key,
    numbered,
    row_height,
    spread,
    tip_text,
)
from demur.report.plotly_lines import draw_lines, draw_strips


def interactive(figure: FigureSpec) -> Interactive:
    """A figure for Plotly.

    Args:
        figure: what it shows.

    Returns:
        Its data and layout under the figure's name.
    """
    content = figure.content
    match content:
        case Bars():
            data, layout, narrow = _draw_bars(content)
        case HeatMaps():
            alone = len(content.maps) == 1 and not content.maps[0].heading
            data, layout, narrow = _draw_map(content.maps[0]) if alone else _draw_maps(content.maps)
        case LayerLines():
            data, layout, narrow = draw_lines(content)
        case PointStrips():
            data, layout, narrow = draw_strips(content)
        case _:
            assert_never(content)
    return Interactive(figure.name, figure.title, data, layout, narrow)


def _draw_bars(bars: Bars) -> tuple[list[Json], Json, Json]:
    """One panel for each axis. The title of a block has its own row. On a phone the panels are below each other."""
    rows: list[tuple[str, BarRow | None]] = []
    for block in bars.blocks:
        if block.title:
            rows.append((f"<b>{label(block.title)}</b>", None))
        rows += [(label(row.label, 34), row) for row in block.rows]
    texts, count = [text for text, _ in rows], len(bars.panels)
    height = row_height(texts) * len(rows)
    # A band and the bar in front of it are at the same place.
    layout = frame(height + 60, barmode="overlay")
    narrow: Json = {"height": count * (height + 60)}
    data: list[Json] = []
    for index, title in enumerate(bars.panels):
        data += _bar_traces([row for _, row in rows], index, bars.full)
        layout[layout_key("x", index)] = axis(
            title,
            range=[0, bars.full * 113 / 100],
            tickvals=[bars.full * quarter / 4 for quarter in range(5)],
            domain=spread(index, count, 0.04),
            anchor=numbered("y", index),
        )
        layout[layout_key("y", index)] = axis(
            range=[len(rows) - 0.4, -0.6],
            tickvals=list(range(len(rows))),
            ticktext=texts,
            showgrid=False,
            showticklabels=index == 0,
            anchor=numbered("x", index),
        )
        narrow |= {
            f"{layout_key('x', index)}.domain": [0, 1],
            f"{layout_key('x', index)}.range": [0, bars.full * 128 / 100],
            f"{layout_key('y', index)}.domain": spread(count - 1 - index, count, 60 / (count * (height + 60))),
            f"{layout_key('y', index)}.showticklabels": True,
        }
    return data, layout, narrow


def _bar_traces(rows: Sequence[BarRow | None], index: int, full: float) -> list[Json]:
    at = {"xaxis": numbered("x", index), "yaxis": numbered("y", index), "showlegend": False}
    measured = [(y, bar) for y, row in enumerate(rows) if row is not None and (bar := row.bars[index]) is not None]
    lacking = [y for y, row in enumerate(rows) if row is not None and row.bars[index] is None]
    bars = [bar for _, bar in measured]
    written = {
        "type": "scatter",
        "mode": "text",
        "x": [max(bar.high, bar.value) + full * 0.015 for bar in bars] + [full * 0.015] * len(lacking),
        "y": [y for y, _ in measured] + lacking,
        "text": [bar.text for bar in bars] + ["not measured"] * len(lacking),
        "textposition": "middle right",
        "textfont": {"size": 11},
        "hoverinfo": "skip",
        **at,
    }
    marks = [(y, mark) for y, bar in measured for mark in bar.marks]
    bands = [{**trace, **at} for trace in _band_traces([(y, band) for y, bar in measured for band in bar.bands])]
    drawn = [*bands, {**_bar_trace(bars, [y for y, _ in measured]), **at}, written]
    if not marks:
        return drawn
    published = {
        "type": "scatter",
        "mode": "markers",
        "x": [mark.value for _, mark in marks],
        # On the bar's upper edge, where it does not cover the number at the bar's end.
        "y": [y - 0.36 for y, _ in marks],
        "marker": {"symbol": ["diamond" if mark.filled else "diamond-open" for _, mark in marks], "size": 9, "color": INK},
        "customdata": [tip_text(mark.tip) for _, mark in marks],
        "hovertemplate": "%{customdata}<extra></extra>",
        **at,
    }
    return [*drawn, published]


def _band_traces(bands: Sequence[tuple[int, RateBand]]) -> list[Json]:
    """Pale bands over the whole height of their rows, and their medians as lines. Bars are less high and do not hide them."""
    if not bands:
        return []
    tips = [tip_text(band.tip) for _, band in bands]
    areas = {
        "type": "bar",
        "orientation": "h",
        "base": [round(band.low, 3) for _, band in bands],
        "x": [round(band.high - band.low, 3) for _, band in bands],
        "y": [y for y, _ in bands],
        "width": 1,
        "marker": {"color": faint(SOFT), "line": {"width": 0}},
        "customdata": tips,
        "hovertemplate": "%{customdata}<extra></extra>",
    }
    # A gap after each line, because one trace draws them all.
    lines = {
        "type": "scatter",
        "mode": "lines",
        "x": [value for _, band in bands for value in (round(band.middle, 3), round(band.middle, 3), None)],
        "y": [value for y, _ in bands for value in (y - 0.5, y + 0.5, None)],
        "line": {"color": SOFT, "width": 1},
        "hoverinfo": "skip",
    }
    return [areas, lines]


def _bar_trace(bars: Sequence[Bar], places: Sequence[int]) -> Json:
    return {
        "type": "bar",
        "orientation": "h",
        "x": [round(bar.value, 3) for bar in bars],
        "y": list(places),
        "width": 0.72,
        "marker": {
            "color": [CONTROL if bar.control else bar.colour or SOFT for bar in bars],
            "line": {"width": 0},
            "pattern": {
                "shape": ["/" if bar.control else "" for bar in bars],
                "fgcolor": PAPER,
                "size": 6,
                "solidity": 0.25,
            },
        },
        "error_x": {
            "type": "data",
            "symmetric": False,
            # Rounding can put a bound on the wrong side of the value, but a length must not be negative.
            "array": [round(max(bar.high - bar.value, 0), 3) for bar in bars],
            "arrayminus": [round(max(bar.value - bar.low, 0), 3) for bar in bars],
            "color": INK,
            "thickness": 1.2,
            "width": 3,
        },
        "customdata": [tip_text(bar.tip) for bar in bars],
        "hovertemplate": "%{customdata}<extra></extra>",
        "meta": {"selects": [bar.selects for bar in bars]},
    }


def _draw_maps(maps: Sequence[HeatMap]) -> tuple[list[Json], Json, Json]:
    """Several heat maps, each with a heading: up to three next to each other, on a phone one below the other."""
    widest = max(len(one.columns) for one in maps)
    across = max(1, min(len(maps), 3, 24 // widest))
    lines = [maps[start : start + across] for start in range(0, len(maps), across)]
    crowded = widest * across > 12
    row = row_height([label(name) for one in maps for name in one.rows])
    tall = [row * max(len(one.rows) for one in line) + 100 for line in lines]
    alone = [row * len(one.rows) + 110 for one in maps]
    layout = frame(0)
    layout["height"], layout["annotations"] = sum(tall), []
    narrow: Json = {"height": sum(alone)}
    for index, one in enumerate(maps):
        line, column = divmod(index, across)
        top = 1 - (sum(tall[:line]) + 44) / sum(tall)
        bottom = 1 - (sum(tall[: line + 1]) - 56) / sum(tall)
        layout[layout_key("x", index)] = axis(
            domain=spread(column, across, 0.03), anchor=numbered("y", index), showgrid=False, type="category"
        )
        layout[layout_key("y", index)] = axis(
            domain=[bottom, top],
            anchor=numbered("x", index),
            showgrid=False,
            type="category",
            autorange="reversed",
            showticklabels=column == 0 or one.rows != lines[line][0].rows,
        )
        layout["annotations"].append(_heading(one, index))
        narrow_top, narrow_bottom = (1 - at / sum(alone) for at in (sum(alone[:index]) + 44, sum(alone[: index + 1]) - 66))
        narrow |= {
            f"{layout_key('x', index)}.domain": [0, 1],
            f"{layout_key('y', index)}.domain": [narrow_bottom, narrow_top],
            f"{layout_key('y', index)}.showticklabels": True,
        }
    return [_heat(one, index, crowded=crowded, column_width=14) for index, one in enumerate(maps)], layout, narrow


def _heading(one: HeatMap, index: int) -> Json:
    first, *others = [escape(line) for line in one.heading or (one.title,)]
    return {
        "text": "<br>".join([f"<b>{first}</b>", *others]),
        "xref": f"{numbered('x', index)} domain",
        "yref": f"{numbered('y', index)} domain",
        "x": 0,
        "y": 1,
        "xanchor": "left",
        "yanchor": "bottom",
        "yshift": 4,
        "align": "left",
        "showarrow": False,
    }


def _draw_map(one: HeatMap) -> tuple[list[Json], Json, Json]:
    """One heat map without a heading."""
    rows = [label(name) for name in one.rows]
    layout = frame(
        max(34 if len(rows) < 6 else ROW, row_height(rows)) * len(rows) + 110,
        xaxis=axis(showgrid=False, type="category"),
        yaxis=axis(showgrid=False, type="category", autorange="reversed"),
    )
    return [_heat(one, 0, crowded=False, column_width=30)], layout, {}


def _heat(one: HeatMap, index: int, *, crowded: bool, column_width: int) -> Json:
    trace: Json = {
        "type": "heatmap",
        "x": [label(column, column_width) for column in one.columns],
        "y": [label(row) + (" (control)" if row in one.controls else "") for row in one.rows],
        "z": [[None if tile is None else round(tile.value, 4) for tile in row] for row in one.tiles],
        "texttemplate": "%{text}" if one.written else "",
        "textfont": {"size": 10 if crowded else 12, "color": INK},
        "hovertemplate": "%{y} and %{x}: %{z:.3f}<extra></extra>",
        "hoverongaps": False,
        "zmin": -1 if one.signed else 0,
        "zmax": 1,
        "colorscale": [[0, AGAINST], [0.5, LOW], [1, HIGH]] if one.signed else [[0, LOW], [1, HIGH]],
        "showscale": False,
        "xgap": 2,
        "ygap": 2,
        "xaxis": numbered("x", index),
        "yaxis": numbered("y", index),
    }
    if one.written:
        sign = "" if crowded else " %"
        trace["text"] = [[DASH if tile is None else tile.text.replace(" %", sign) for tile in row] for row in one.tiles]
    if any(tile is not None and tile.tip is not None for row in one.tiles for tile in row):
        trace["hovertemplate"] = "%{customdata}<extra></extra>"
        trace["customdata"] = [
            ["not measured" if tile is None else tile.text if tile.tip is None else tip_text(tile.tip) for tile in row]
            for row in one.tiles
        ]
    if any(tile is not None and tile.selects for row in one.tiles for tile in row):
        trace["meta"] = {"selects": [["" if tile is None else tile.selects for tile in row] for row in one.tiles]}
    return trace
