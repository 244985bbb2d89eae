"""Where directions live, as figures that answer to a pointer: cosines, separation and norms by layer, and single instructions.

They show what a run measured at every layer (`summary["by_layer"]`); a run without it has none of them. Colour is the checkpoint,
as everywhere; a dash the prompt format.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from demur.report.cell_view import Entry
from demur.report.layer_view import (
    SETS,
    Line,
    arm_looks,
    arm_names,
    cosine_lines,
    instruction_rows,
    norm_shares,
    null_band,
    scattered,
)
from demur.report.plotly_base import INK, SOFT, Interactive, axis, frame, label, layout_key, numbered, spread
from demur.report.style import PALETTE

if TYPE_CHECKING:
    import pandas

_DASHES = ("solid", "dash", "dot", "dashdot")
_SYMBOLS = {True: "circle", False: "circle-open", None: "x-thin-open"}
"""Of an instruction that was refused, was not, or is not answered yet."""
_ABOVE = {"orientation": "h", "x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom"}


def by_layer(
    summary: Mapping[str, Any], palette: Mapping[str, str], found: Sequence[Entry], completions: "pandas.DataFrame"
) -> list[Interactive]:
    """The figures of what was measured at every layer; none where nothing was."""
    measured = summary.get("by_layer")
    if not measured:
        return []
    arms = arm_names(summary)
    looks = [{"color": colour, "dash": dash, "width": 2} for colour, dash in arm_looks(measured, palette, _DASHES)]
    marked = list(summary["study"]["direction"]["layers"])
    made = [
        _cosines(cosine_lines(summary), measured, marked),
        _separation(measured, arms, looks, marked),
        _norms(measured, arms, looks, marked),
        _projections(summary, found, completions),
    ]
    return [one for one in made if one is not None]


def _line(
    name: str, values: Sequence[float | None], look: Mapping[str, Any], panel: int, unit: str, **more: Any
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": label(name, 40),
        "legendgroup": name,
        "x": list(range(len(values))),
        "y": list(values),
        "line": dict(look),
        "marker": {"size": 4, "color": look["color"]},
        "hovertemplate": f"<b>{label(name, 60)}</b><br>layer %{{x}}: %{{y:.3~g}} {unit}<extra></extra>",
        "xaxis": numbered("x", panel),
        "yaxis": numbered("y", panel),
        "showlegend": panel == 0,
        **more,
    }


def _band(name: str, bounds: Sequence[Sequence[float] | None], colour: str, panel: int, **more: Any) -> dict[str, Any]:
    there = [(layer, pair) for layer, pair in enumerate(bounds) if pair is not None]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": label(name, 40),
        "legendgroup": name,
        "x": [layer for layer, _ in there] + [layer for layer, _ in reversed(there)],
        "y": [pair[0] for _, pair in there] + [pair[1] for _, pair in reversed(there)],
        "fill": "toself",
        "fillcolor": _faint(colour),
        "line": {"width": 0},
        "hoverinfo": "skip",
        "xaxis": numbered("x", panel),
        "yaxis": numbered("y", panel),
        "showlegend": False,
        **more,
    }


def _faint(colour: str, share: float = 0.16) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{share})"


def _panels(titles: Sequence[str], marked: Sequence[int], height: int, **more: Any) -> dict[str, Any]:
    """Panels below each other over one axis of layers, with a dotted line at each layer that the study moves."""
    layout = frame(height, showlegend=True, legend=_ABOVE, **more)
    layout["shapes"] = []
    for index, title in enumerate(titles):
        last = index == len(titles) - 1
        layout[layout_key("x", index)] = axis(
            "layer" if last else "", anchor=numbered("y", index), showticklabels=last, matches=None if index == 0 else "x"
        )
        layout[layout_key("y", index)] = axis(
            title, anchor=numbered("x", index), domain=spread(len(titles) - 1 - index, len(titles), 0.06)
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
            for layer in marked
        ]
    return layout


def _cosines(lines: Sequence[Line], measured: Mapping[str, Any], marked: Sequence[int]) -> Interactive | None:
    if not lines:
        return None
    null = measured["cosine_null95"]
    data = [_band("random directions", [[-null, null]] * len(lines[0].values), SOFT, 0, showlegend=True)]
    data += [
        _line(
            line.name,
            line.values,
            {"color": PALETTE[index % 6], "dash": _DASHES[index // 6 % len(_DASHES)], "width": 2},
            0,
            "",
        )
        for index, line in enumerate(lines)
    ]
    layout = _panels(["cosine"], marked, 300 + 12 * len(lines))
    return Interactive("cosines-by-layer", "Cosine between the checkpoints' directions, by layer", data, layout)


def _separation(
    measured: Mapping[str, Any], arms: Sequence[str], looks: Sequence[Mapping[str, Any]], marked: Sequence[int]
) -> Interactive:
    data = [_band("random directions", null_band(measured), SOFT, 0, showlegend=True)]
    for arm, name, look in zip(measured["arms"], arms, looks, strict=True):
        bounds = [f"[{pair[0]:.3f}, {pair[1]:.3f}]" if pair else "" for pair in arm["auroc_ci95"]]
        data += [
            _band(name, arm["auroc_ci95"], str(look["color"]), 0),
            _line(name, arm["auroc"], look, 0, "%{customdata}", customdata=bounds),
            _line(name, arm["gap"], look, 1, "standard deviations"),
        ]
    layout = _panels(["AUROC", "gap (pooled SD)"], marked, 520)
    layout["yaxis"] |= {"tickformat": ".2~f"}
    return Interactive("separation", "Held-out harmful against harmless instructions, by layer", data, layout)


def _norms(
    measured: Mapping[str, Any], arms: Sequence[str], looks: Sequence[Mapping[str, Any]], marked: Sequence[int]
) -> Interactive:
    data = []
    for arm, name, look in zip(measured["arms"], arms, looks, strict=True):
        data += [
            _line(name, [norm or None for norm in arm["raw_norm"]], look, 0, ""),
            _line(name, norm_shares(arm), look, 1, "of the mean activation"),
        ]
    layout = _panels(["norm of the direction", "share of the stream's norm"], marked, 480)
    layout["yaxis"] |= {"type": "log", "dtick": 1}
    layout["yaxis2"] |= {"tickformat": ".0%", "rangemode": "tozero"}
    return Interactive("norms", "How long the difference of means is, by layer", data, layout)


def _projections(summary: Mapping[str, Any], found: Sequence[Entry], completions: "pandas.DataFrame") -> Interactive | None:
    """A row an arm and layer, a point an instruction, the distribution behind them."""
    rows = instruction_rows(summary, found, completions)
    if not rows:
        return None
    data: list[dict[str, Any]] = []
    for index, row in enumerate(rows):
        for side, up in (("harmful", -0.22), ("harmless", 0.22)):
            points = [point for point in row.points if point.instructions == side and point.along is not None]
            first = not any(trace.get("name") == side for trace in data)
            data.append(
                {
                    "type": "violin",
                    "orientation": "h",
                    "x": [point.along for point in points],
                    "y0": index + up,
                    "width": 0.42,
                    "points": False,
                    "hoverinfo": "skip",
                    "line": {"color": SETS[side], "width": 1},
                    "fillcolor": _faint(SETS[side], 0.12),
                    "spanmode": "hard",
                    "showlegend": False,
                }
            )
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": side,
                    "legendgroup": side,
                    "showlegend": first,
                    "x": [point.along for point in points],
                    "y": [round(index + up + 0.3 * (scattered(place) - 0.5), 4) for place in range(len(points))],
                    "marker": {
                        "size": 6,
                        "color": SETS[side],
                        "symbol": [_SYMBOLS[point.refused] for point in points],
                    },
                    "customdata": [
                        [f"{side} {point.index}", f"{side} instruction {point.index}, {point.verdict}"] for point in points
                    ],
                    "hovertemplate": f"<b>{label(row.name, 60)}</b><br>%{{customdata[1]}}<br>at %{{x:.3f}}<extra></extra>",
                }
            )
    layout = frame(
        110 * len(rows) + 90,
        showlegend=True,
        legend={**_ABOVE, "itemclick": False, "itemdoubleclick": False},
        xaxis=axis("along the direction: 0 the mean of harmless, 1 of harmful training instructions", zeroline=False),
        yaxis=axis(
            range=[len(rows) - 0.5, -0.5],
            tickvals=list(range(len(rows))),
            ticktext=[label(row.name, 18) for row in rows],
            showgrid=False,
        ),
        shapes=[
            {"type": "line", "xref": "x", "yref": "paper", "x0": at, "x1": at, "y0": 0, "y1": 1}
            | {"line": {"color": INK, "width": 1, "dash": "dot"}, "layer": "below"}
            for at in (0, 1)
        ],
    )
    narrow = {"xaxis.title.text": "along the direction<br>(0: mean harmless, 1: mean harmful)"}
    return Interactive("projections", "Single held-out instructions along each arm's own direction", data, layout, narrow)
