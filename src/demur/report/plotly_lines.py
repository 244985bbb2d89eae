"""Interactive lines over layers and strips of points, as data for Plotly."""

from collections.abc import Sequence

from demur.report.figure_contents import Band, LayerLines, Line, LinePanel, PointGroup, PointStrips
from demur.report.plotly_base import INK, SOFT, Json, axis, faint, frame, label, layout_key, numbered, spread
from demur.report.style import group_offsets, scattered

_DASHES = ("solid", "dash", "dot", "dashdot")
_SYMBOLS = {"filled": "circle", "hollow": "circle-open", "cross": "x-thin-open"}
_ABOVE = {"orientation": "h", "x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom"}


def draw_lines(lines: LayerLines) -> tuple[list[Json], Json, Json]:
    """Panels below each other over one axis of layers; the legend shows the lines of the first panel."""
    layout = frame(lines.pixels, showlegend=True, legend=_ABOVE, shapes=[])
    data: list[Json] = []
    count = len(lines.panels)
    for index, panel in enumerate(lines.panels):
        data += [_band(band, index) for band in panel.bands]
        data += [_line(line, index, panel.unit) for line in panel.lines]
        last = index == count - 1
        layout[layout_key("x", index)] = axis(
            "layer" if last else "", anchor=numbered("y", index), showticklabels=last, matches=None if index == 0 else "x"
        )
        layout[layout_key("y", index)] = axis(
            panel.title, anchor=numbered("x", index), domain=spread(count - 1 - index, count, 0.06), **_counting(panel)
        )
        layout["shapes"] += [
            {
                "type": "line",
                "xref": numbered("x", index),
                "yref": f"{numbered('y', index)} domain",
                "x0": layer,
                "x1": layer,
                "y0": 0,
                "y1": 1,
                "line": {"color": SOFT, "width": 1, "dash": "dot"},
            }
            for layer in lines.marked
        ]
    return data, layout, {}


def _counting(panel: LinePanel) -> Json:
    if panel.scale == "log":
        return {"type": "log", "dtick": 1}
    if panel.scale == "share":
        return {"tickformat": ".0%", "rangemode": "tozero"}
    return {} if panel.places is None else {"tickformat": f".{panel.places}~f"}


def _line(line: Line, panel: int, unit: str) -> Json:
    said = "%{customdata}" if line.notes else unit
    trace: Json = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": label(line.name, 40),
        "legendgroup": line.name,
        "x": list(range(len(line.values))),
        "y": list(line.values),
        "line": {"color": line.colour, "dash": _DASHES[line.dash % len(_DASHES)], "width": 2},
        "marker": {"size": 4, "color": line.colour},
        "hovertemplate": f"<b>{label(line.name, 60)}</b><br>layer %{{x}}: %{{y:.3~g}} {said}<extra></extra>",
        "xaxis": numbered("x", panel),
        "yaxis": numbered("y", panel),
        "showlegend": panel == 0,
    }
    return trace | ({"customdata": list(line.notes)} if line.notes else {})


def _band(band: Band, panel: int) -> Json:
    there = [(layer, pair) for layer, pair in enumerate(band.bounds) if pair is not None]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": label(band.name, 40),
        "legendgroup": band.name,
        "x": [layer for layer, _ in there] + [layer for layer, _ in reversed(there)],
        "y": [pair[0] for _, pair in there] + [pair[1] for _, pair in reversed(there)],
        "fill": "toself",
        "fillcolor": faint(band.colour or SOFT),
        "line": {"width": 0},
        "hoverinfo": "skip",
        "xaxis": numbered("x", panel),
        "yaxis": numbered("y", panel),
        "showlegend": band.in_legend,
    }


def draw_strips(strips: PointStrips) -> tuple[list[Json], Json, Json]:
    """A row for each strip. The distribution of each group is drawn behind its points."""
    symbols = {look.name: _SYMBOLS[look.look] for look in strips.looks}
    data: list[Json] = []
    named = set[str]()
    for index, strip in enumerate(strips.strips):
        height, reach = 0.84 / len(strip.groups), 0.6 / len(strip.groups)
        for group, offset in zip(strip.groups, group_offsets(len(strip.groups)), strict=True):
            data.append(_distribution(group, index + offset, height))
            places = [round(index + offset + reach * (scattered(i) - 0.5), 4) for i in range(len(group.points))]
            data.append(_points(group, strip.name, places, symbols) | {"showlegend": group.name not in named})
            named.add(group.name)
    names = [label(strip.name, 18) for strip in strips.strips]
    layout = frame(
        110 * len(names) + 90,
        showlegend=True,
        legend={**_ABOVE, "itemclick": False, "itemdoubleclick": False},
        xaxis=axis(strips.axis, zeroline=False),
        yaxis=axis(range=[len(names) - 0.5, -0.5], tickvals=list(range(len(names))), ticktext=names, showgrid=False),
        shapes=[
            {"type": "line", "xref": "x", "yref": "paper", "x0": at, "x1": at, "y0": 0, "y1": 1}
            | {"line": {"color": INK, "width": 1, "dash": "dot"}, "layer": "below"}
            for at in strips.lines
        ],
    )
    narrow = {"xaxis.title.text": "<br>".join(label(line, 60) for line in strips.narrow_axis)} if strips.narrow_axis else {}
    return data, layout, narrow


def _distribution(group: PointGroup, place: float, height: float) -> Json:
    return {
        "type": "violin",
        "orientation": "h",
        "x": [point.value for point in group.points],
        "y0": place,
        "width": height,
        "points": False,
        "hoverinfo": "skip",
        "line": {"color": group.colour, "width": 1},
        "fillcolor": faint(group.colour, 0.12),
        "spanmode": "hard",
        "showlegend": False,
    }


def _points(group: PointGroup, strip: str, places: Sequence[float], symbols: dict[str, str]) -> Json:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": group.name,
        "legendgroup": group.name,
        "x": [point.value for point in group.points],
        "y": list(places),
        "marker": {"size": 6, "color": group.colour, "symbol": [symbols[point.look] for point in group.points]},
        "customdata": [[point.instruction, label(point.tip, 60)] for point in group.points],
        "hovertemplate": f"<b>{label(strip, 60)}</b><br>%{{customdata[1]}}<br>at %{{x:.3f}}<extra></extra>",
    }
