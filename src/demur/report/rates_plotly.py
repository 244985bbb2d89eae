"""The figures that answer to a pointer, all of them in the order of the page, and the bars of refusal rates.

Bars are horizontal, so that long names stay readable: a block a target, a panel an instruction set, with intervals and published
rates. On a phone the panels stand below each other.
"""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from demur.analysis.published_rates import SAME
from demur.core import number_format
from demur.report.cell_view import Entry, instruction_sets, targets_of
from demur.report.grids_plotly import cosines, transfer
from demur.report.layers_plotly import by_layer
from demur.report.plotly_base import (
    CONTROL,
    INK,
    PAPER,
    SOFT,
    Interactive,
    axis,
    frame,
    label,
    layout_key,
    numbered,
    row_height,
    said,
    spread,
)
from demur.report.style import NEUTRAL, colours
from demur.report.transfer_matrix import Matrix

if TYPE_CHECKING:
    import pandas


def interactives(
    summary: Mapping[str, Any], found: Sequence[Entry], matrices: Sequence[Matrix], completions: "pandas.DataFrame"
) -> list[Interactive]:
    """All figures of one judge's entries, in the order of the page."""
    palette = colours(list(summary["checkpoints"]))
    titles = {
        "none": ("rates", "Refusal rates without intervention"),
        "add": ("added", "Refusal rates with each direction added"),
        "ablate": ("ablated", "Refusal rates with each direction ablated"),
    }
    made = [_bars(*names, found, intervention, palette) for intervention, names in titles.items()]
    made.append(transfer(matrices))
    made += [cosines(summary), *by_layer(summary, palette, found, completions)]
    return [one for one in made if one is not None]


def _bars(name: str, title: str, found: Sequence[Entry], intervention: str, palette: Mapping[str, str]) -> Interactive | None:
    """A panel an instruction set; without intervention a bar a checkpoint, else a block a target: baseline, then directions."""
    chosen = [entry for entry in found if entry.intervention == intervention]
    if not chosen:
        return None
    sets = instruction_sets(chosen)
    rows: list[tuple[str, Mapping[str, Entry]]] = []
    if intervention == "none":
        rows = list(_rows(chosen, lambda entry: entry.target).items())
    else:
        baselines = [entry for entry in found if entry.intervention == "none" and entry.instructions in sets]
        for target in targets_of(chosen):
            rows.append((f"<b>on {label(target)}</b>", {}))
            rows += _rows([e for e in (*baselines, *chosen) if e.target == target], lambda entry: entry.variant).items()
    data: list[dict[str, Any]] = []
    height = row_height([text if not cells else label(text) for text, cells in rows]) * len(rows)
    layout = frame(height + 60)
    narrow: dict[str, Any] = {"height": len(sets) * (height + 60)}
    for index, kind in enumerate(sets):
        data += _bar_traces(rows, kind, index, palette, by_target=intervention == "none")
        layout[layout_key("x", index)] = axis(
            f"refused of {kind} instructions (%)",
            range=[0, 113],
            tickvals=[0, 25, 50, 75, 100],
            domain=spread(index, len(sets), 0.04),
            anchor=numbered("y", index),
        )
        layout[layout_key("y", index)] = axis(
            range=[len(rows) - 0.4, -0.6],
            tickvals=list(range(len(rows))),
            ticktext=[text if not cells else label(text) for text, cells in rows],
            showgrid=False,
            showticklabels=index == 0,
            anchor=numbered("x", index),
        )
        narrow |= {
            f"{layout_key('x', index)}.domain": [0, 1],
            f"{layout_key('x', index)}.range": [0, 128],
            f"{layout_key('y', index)}.domain": spread(len(sets) - 1 - index, len(sets), 60 / (len(sets) * (height + 60))),
            f"{layout_key('y', index)}.showticklabels": True,
        }
    return Interactive(name, title, data, layout, narrow)


def _rows(entries: Sequence[Entry], name: Callable[[Entry], str]) -> dict[str, dict[str, Entry]]:
    rows: dict[str, dict[str, Entry]] = {}
    for entry in sorted(entries, key=lambda e: (e.intervention != "none", e.control)):
        rows.setdefault(name(entry), {})[entry.instructions] = entry
    return rows


def _bar_traces(
    rows: Sequence[tuple[str, Mapping[str, Entry]]], kind: str, index: int, palette: Mapping[str, str], *, by_target: bool
) -> list[dict[str, Any]]:
    at = {"xaxis": numbered("x", index), "yaxis": numbered("y", index), "showlegend": False}
    there = [(y, cells[kind]) for y, (_, cells) in enumerate(rows) if kind in cells]
    lacking = [y for y, (_, cells) in enumerate(rows) if cells and kind not in cells]
    entries = [entry for _, entry in there]

    def colour(entry: Entry) -> str:
        if entry.control:
            return CONTROL
        return palette.get(str(entry.cell["target"]) if by_target else entry.source or "", NEUTRAL if by_target else SOFT)

    bars = {
        "type": "bar",
        "orientation": "h",
        "x": [round(100 * entry.rate, 3) for entry in entries],
        "y": [y for y, _ in there],
        "width": 0.72,
        "marker": {
            "color": [colour(entry) for entry in entries],
            "line": {"width": 0},
            "pattern": {
                "shape": ["/" if entry.control else "" for entry in entries],
                "fgcolor": PAPER,
                "size": 6,
                "solidity": 0.25,
            },
        },
        "error_x": {
            "type": "data",
            "symmetric": False,
            # Rounding can put a bound past the rate, and a length is not negative.
            "array": [round(max(100 * (entry.interval[1] - entry.rate), 0), 3) for entry in entries],
            "arrayminus": [round(max(100 * (entry.rate - entry.interval[0]), 0), 3) for entry in entries],
            "color": INK,
            "thickness": 1.2,
            "width": 3,
        },
        "customdata": [said(entry) for entry in entries],
        "hovertemplate": "%{customdata}<extra></extra>",
        **at,
    }
    written = {
        "type": "scatter",
        "mode": "text",
        "x": [100 * max(entry.interval[1], entry.rate) + 1.5 for entry in entries] + [1.5] * len(lacking),
        "y": [y for y, _ in there] + lacking,
        "text": [number_format.percent(entry.rate, entry.n) for entry in entries] + ["not measured"] * len(lacking),
        "textposition": "middle right",
        "textfont": {"size": 11},
        "hoverinfo": "skip",
        **at,
    }
    marks = [(y, row) for y, entry in there for row in entry.published]
    if not marks:
        return [bars, written]
    published = {
        "type": "scatter",
        "mode": "markers",
        "x": [100 * row["published"]["rate"] for _, row in marks],
        # On the bar's upper edge, clear of the number behind the bar.
        "y": [y - 0.36 for y, _ in marks],
        "marker": {
            "symbol": ["diamond" if row["settings"] == SAME else "diamond-open" for _, row in marks],
            "size": 9,
            "color": INK,
        },
        "customdata": [
            f"published: {100 * row['published']['rate']:.1f} %<br>{label(str(row['work']), 50)}<br>"
            f"settings: {escape(row['settings'])}"
            for _, row in marks
        ],
        "hovertemplate": "%{customdata}<extra></extra>",
        **at,
    }
    return [bars, written, published]
