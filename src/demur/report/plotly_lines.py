"""Interactive lines over layers and strips of points, as data for Plotly."""

from collections.abc import Sequence
from urllib.parse import urlencode

from demur.report.figure_contents import Band, LayerLines, Line, LinePanel, PointGroup, PointStrips
from demur.report.large_runs.evenly_spaced import axis_ticks
from demur.report.plotly_base import INK, SOFT, Json, axis, faint, frame, label, layout_key, numbered, spread
from demur.report.style import group_offsets, scattered

_DASHES = ("solid", "dash", "dot", "dashdot")
_SYMBOLS = {"filled": "circle", "hollow": "circle-open", "cross": "x-thin-open"}
_ABOVE = {"orientation": "h", "x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom"}


def draw_lines(lines: LayerLines) -> tuple[list[Json], Json, Json]:
    """Panels below each other over one horizontal axis; the legend shows the lines of the first panel."""
    layout = frame(lines.pixels, showlegend=True, legend=_ABOVE, shapes=[], annotations=[])
    data: list[Json] = []
    count = len(lines.panels)
    for index, panel in enumerate(lines.panels):
        data += [_band(band, index, lines) for band in panel.bands]
        named = set[str]()
        for line in sorted(panel.lines, key=lambda one: not one.thin):
            data.append(_line(line, index, panel, lines) | {"showlegend": index == 0 and line.name not in named})
            named.add(line.name)
        last = index == count - 1
        ticks: Json = {"tickvals": [place for place, _ in axis_ticks(lines.horizontal, lines.names)]} if lines.horizontal else {}
        if lines.names:
            ticks["ticktext"] = [label(text, 30) for _, text in axis_ticks(lines.horizontal, lines.names)]
        layout[layout_key("x", index)] = axis(
            lines.axis if last else "",
            anchor=numbered("y", index),
            showticklabels=last,
            matches=None if index == 0 else "x",
            **ticks,
        )
        gap = 28 / lines.pixels if panel.heading else 0.06
        layout[layout_key("y", index)] = axis(
            panel.title, anchor=numbered("x", index), domain=spread(count - 1 - index, count, gap), **_counting(panel)
        )
        if panel.heading:
            layout["annotations"].append(_heading(panel, index))
        layout["shapes"] += [
            {
                "type": "line",
                "xref": numbered("x", index),
                "yref": f"{numbered('y', index)} domain",
                "x0": place,
                "x1": place,
                "y0": 0,
                "y1": 1,
                "line": {"color": SOFT, "width": 1, "dash": "dot"},
            }
            for place in lines.marked
        ]
    if layout["annotations"]:
        # The heading of the first panel is between the legend and the panel.
        layout["legend"] = {**_ABOVE, "y": 1 + 24 / lines.pixels}
    return data, layout, {}


def _heading(panel: LinePanel, index: int) -> Json:
    return {
        "text": f"<b>{label(panel.heading, 60)}</b>",
        "xref": f"{numbered('x', index)} domain",
        "yref": f"{numbered('y', index)} domain",
        "x": 0,
        "y": 1,
        "xanchor": "left",
        "yanchor": "bottom",
        "yshift": 2,
        "showarrow": False,
    }


def _counting(panel: LinePanel) -> Json:
    if panel.scale == "log":
        return {"type": "log", "dtick": 1}
    if panel.scale == "share":
        fixed = {} if panel.top is None else {"range": [0, 1.03 * panel.top], "tickvals": [panel.top * i / 4 for i in range(5)]}
        return {"tickformat": ".0%", "rangemode": "tozero", **fixed}
    return {} if panel.places is None else {"tickformat": f".{panel.places}~f"}


def _line(line: Line, index: int, panel: LinePanel, lines: LayerLines) -> Json:
    said = "%{customdata}" if line.notes else panel.unit
    value = "%{y:.0%}" if panel.scale == "share" and panel.top is not None else "%{y:.3~g}"
    # With names, the note of a value begins with the name of its place.
    where = "" if lines.names else f"{label(lines.axis, 60)} %{{x}}: "
    trace: Json = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": label(line.name, 40),
        "legendgroup": line.name,
        "x": list(lines.at(len(line.values))),
        "y": list(line.values),
        "line": {"color": line.colour, "dash": _DASHES[line.dash % len(_DASHES)], "width": 1 if line.thin else 2},
        "marker": {"size": 3 if line.thin else 7 if lines.horizontal else 4, "color": line.colour},
        "hovertemplate": f"<b>{label(line.name, 60)}</b><br>{where}{value} {said}<extra></extra>",
        "xaxis": numbered("x", index),
        "yaxis": numbered("y", index),
    }
    if line.joined:
        trace["connectgaps"] = True
    if line.thin:
        trace["legendrank"] = 1001  # after all others, although it is drawn first
    if line.notes:
        trace["customdata"] = list(line.notes)
    return trace | ({"meta": {"selects": list(line.selects)}} if any(line.selects) else {})


def _band(band: Band, index: int, lines: LayerLines) -> Json:
    there = [(at, pair) for at, pair in zip(lines.at(len(band.bounds)), band.bounds, strict=True) if pair is not None]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": label(band.name, 40),
        "legendgroup": band.name,
        "x": [at for at, _ in there] + [at for at, _ in reversed(there)],
        "y": [pair[0] for _, pair in there] + [pair[1] for _, pair in reversed(there)],
        "fill": "toself",
        "fillcolor": faint(band.colour or SOFT),
        "line": {"width": 0},
        "hoverinfo": "skip",
        "xaxis": numbered("x", index),
        "yaxis": numbered("y", index),
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
        "customdata": [label(point.tip, 60) for point in group.points],
        "hovertemplate": f"<b>{label(strip, 60)}</b><br>%{{customdata}}<br>at %{{x:.3f}}<extra></extra>",
        "meta": {"selects": [urlencode({"instruction": one.instruction}) if one.instruction else "" for one in group.points]},
    }
