"""Lines and strips of points as SVG text, for `inline_svg`."""

import math
from collections.abc import Callable, Sequence

from demur.report.figure_contents import Band, LayerLines, Line, LinePanel, PointGroup, PointLook, PointStrips
from demur.report.large_runs.evenly_spaced import axis_ticks
from demur.report.pictures.svg_elements import LINE, WIDE, drawing, element, legend, lines_of, paragraph, rule, ticks, words
from demur.report.style import group_offsets, scattered

_DASHES = ("", "6 3", "2 2", "6 2 2 2")
_LEFT, _RIGHT = 58.0, 12.0

Scale = Callable[[float], float]
"""From a value to its place in the drawing."""


def draw_lines(lines: LayerLines) -> str:
    """Panels below each other over one horizontal axis; the legend shows the lines of the first panel."""
    named = {line.name: line for line in lines.panels[0].lines}
    samples = [(_stroke(line, "M-10 0H10"), name) for name, line in named.items()]
    bands = {band.name: band for band in lines.panels[0].bands if band.in_legend}
    samples += [(element("rect", x=-10.0, y=-5.0, width=20.0, height=10.0, **_shade(band)), name) for name, band in bands.items()]
    drawn, y = legend(samples, WIDE)
    places = lines.at(max((len(line.values) for panel in lines.panels for line in panel.lines), default=0))
    across = _linear(min(places, default=0), max(places, default=1), _LEFT + 8, WIDE - _RIGHT)
    layers = [(at, f"{at:g}") for at in ticks(min(places, default=0), max(places, default=1), 10)]
    marks = axis_ticks(lines.horizontal, lines.names) if lines.horizontal else layers
    height = max(90.0, (lines.pixels - y - 2 * LINE) / len(lines.panels) - 14)
    parts = [drawn]
    for panel in lines.panels:
        if panel.heading:
            parts.append(words(_LEFT, y + LINE / 2, panel.heading, kind="bold"))
            y += LINE + 6
        parts += [rule(across(at), y, across(at), y + height, "dotted") for at in lines.marked]
        parts.append(_panel(panel, places, across, y + 4, y + height))
        y += height + 14
    # Long names stand on two levels, so that neighbours do not touch.
    levels = 2 if sum(len(text) for _, text in marks) > 80 else 1
    parts += [words(across(at), y + LINE * (number % levels), text, "middle", "soft") for number, (at, text) in enumerate(marks)]
    y += LINE * (levels - 1)
    parts.append(words((_LEFT + WIDE) / 2, y + LINE + 3, lines.axis, "middle", "soft"))
    return drawing(WIDE, y + 2 * LINE + 2, parts)


def _panel(panel: LinePanel, places: Sequence[float], across: Scale, top: float, bottom: float) -> str:
    values = [value for line in panel.lines for value in line.values if value is not None]
    values += [value for band in panel.bands for pair in band.bounds if pair is not None for value in pair]
    log = panel.scale == "log"
    values = [value for value in values if math.isfinite(value) and (value > 0 or not log)] or [1.0]
    low, high = (0.0 if panel.scale == "share" else min(values)), (max(values) if panel.top is None else panel.top)
    if log:
        linear = _linear(math.log10(low), math.log10(high), bottom, top)
        marks = [10.0**power for power in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)] or [low]
    else:
        linear = _linear(low, high, bottom, top)
        marks = ticks(low, high, 4)

    def up(value: float) -> float:
        return linear(math.log10(value) if log else value)

    parts = []
    for mark in marks:
        text = f"{100 * mark:g} %" if panel.scale == "share" else f"{mark:g}"
        parts += [rule(_LEFT, up(mark), WIDE - _RIGHT, up(mark)), words(_LEFT - 6, up(mark), text, "end", "soft")]
    title = lines_of(panel.short_title or panel.title, 26)
    turned = element(
        "g", paragraph(0, 0, title, "middle", "soft"), transform=f"translate(8 {(top + bottom) / 2:.1f}) rotate(-90)"
    )
    parts.append(turned)
    parts += [_area(band, places, across, up) for band in panel.bands]
    for line in sorted(panel.lines, key=lambda one: not one.thin):
        parts.append(_drawn(line, places, across, up, positive=log))
    return "".join(parts)


def _drawn(line: Line, places: Sequence[float], across: Scale, up: Scale, *, positive: bool) -> str:
    """A line with its gaps, and a dot for each value."""
    steps, dots, pen = [], [], "M"
    for place, value in zip(places, line.values, strict=False):
        if value is None or not math.isfinite(value) or (positive and value <= 0):
            pen = "M"
            continue
        steps.append(f"{pen}{across(place):.1f} {up(value):.1f}")
        pen = "L"
        dots.append(element("circle", cx=across(place), cy=up(value), r=1.0 if line.thin else 2.2, fill=line.colour))
    return _stroke(line, "".join(steps)) + "".join(dots)


def _stroke(line: Line, path: str) -> str:
    dash = _DASHES[line.dash % len(_DASHES)]
    more = {"stroke_dasharray": dash} if dash else {}
    return element("path", d=path, fill="none", stroke=line.colour, stroke_width=1.0 if line.thin else 1.8, **more)


def _area(band: Band, places: Sequence[float], across: Scale, up: Scale) -> str:
    there = [(place, pair) for place, pair in zip(places, band.bounds, strict=False) if pair is not None]
    around = [(place, low) for place, (low, _) in there] + [(place, high) for place, (_, high) in reversed(there)]
    points = " ".join(f"{across(place):.1f},{up(value):.1f}" for place, value in around)
    return element("polygon", points=points, **_shade(band)) if there else ""


def _shade(band: Band) -> dict[str, str | float]:
    return {"fill": band.colour, "fill_opacity": 0.16} if band.colour else {"class_": "band"}


def _linear(low: float, high: float, start: float, end: float) -> Scale:
    span = high - low or 1.0
    return lambda value: start + (end - start) * (value - low) / span


def draw_strips(strips: PointStrips) -> str:
    """A row for each strip. The groups of a strip are below each other."""
    groups = {group.name: group for strip in strips.strips for group in strip.groups}
    used = {(group.name, point.look) for strip in strips.strips for group in strip.groups for point in group.points}
    samples = [
        (_dot(group, look, 0.0, 0.0), f"{group.name}, {look.name}")
        for group in groups.values()
        for look in strips.looks
        if not look.optional or (group.name, look.name) in used
    ]
    drawn, top = legend(samples, WIDE)
    values = [point.value for strip in strips.strips for group in strip.groups for point in group.points] + list(strips.lines)
    left, looks = 120.0, {look.name: look for look in strips.looks}
    across = _linear(min(values, default=0), max(values, default=1), left + 10, WIDE - _RIGHT - 6)
    tall = 84.0
    bottom = top + tall * len(strips.strips)
    parts = [drawn, *(rule(across(at), top, across(at), bottom, "dotted") for at in strips.lines)]
    for index, strip in enumerate(strips.strips):
        middle = top + tall * (index + 0.5)
        parts.append(paragraph(left - 8, middle, lines_of(strip.name, 18), "end"))
        for group, offset in zip(strip.groups, group_offsets(len(strip.groups)), strict=True):
            reach = 0.6 / len(strip.groups)
            for place, point in enumerate(group.points):
                y = middle + tall * (offset + reach * (scattered(place) - 0.5))
                parts.append(_dot(group, looks[point.look], across(point.value), y))
    for mark in ticks(min(values, default=0), max(values, default=1), 8):
        parts.append(words(across(mark), bottom + 8, f"{mark:g}", "middle", "soft"))
    parts.append(words((left + WIDE) / 2, bottom + 8 + LINE + 3, strips.axis, "middle", "soft"))
    return drawing(WIDE, bottom + 2 * LINE + 12, parts)


def _dot(group: PointGroup, look: PointLook, x: float, y: float) -> str:
    if look.look == "cross":
        arms = f"M{x - 2.5:.1f} {y - 2.5:.1f}l5 5m0-5l-5 5"
        return element("path", d=arms, stroke=group.colour, stroke_width=1.0, fill="none")
    fill = group.colour if look.look == "filled" else "none"
    return element("circle", cx=x, cy=y, r=2.4, fill=fill, stroke=group.colour, stroke_width=0.9)
