"""The figures that answer to a pointer, as plain data for Plotly: refusal rates, transfer, cosines.

What a figure holds is JSON, so the page and a notebook draw the same one. Names are escaped where Plotly would read markup.
Every colour that depends on the paper is one of `INK`, and the page exchanges these for the dark; the others are told apart by
colour-blind readers on both. `narrow` is what changes on a phone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

from demur.published import SAME
from demur.report import words
from demur.report.entries import BASELINE, INTERVENTIONS, Entry, direction_labels, instruction_sets, targets_of
from demur.report.style import NEUTRAL, colours
from demur.report.transfer import Matrix

if TYPE_CHECKING:
    import pandas

INK, SOFT, LINE, PAPER, CONTROL = "#1d1d1b", "#5a5a55", "#d9d9d2", "#fdfdfb", "#a8a8a2"
LOW, HIGH, AGAINST = "#f4f4ef", "#56b3e8", "#e6a000"
"""Ends of the heat maps: nothing, much, and much of the opposite."""
DARK = {
    INK: "#e6e5e0",
    SOFT: "#a6a59e",
    LINE: "#3a3c3a",
    PAPER: "#161716",
    CONTROL: "#7d7d78",
    LOW: "#232625",
    HIGH: "#0b78bb",
    AGAINST: "#a86400",
}
"""What stands for each of them in the dark."""
ROW = 21
"""Height of a bar or a row of cells with what is around it, in pixels."""
SANS = 'system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif'


@dataclass(frozen=True)
class Interactive:
    """A figure under the name that `Run.figure` knows it by: Plotly's `data` and `layout`, and what is `narrow` on a phone."""

    name: str
    title: str
    data: list[dict[str, Any]]
    layout: dict[str, Any]
    narrow: dict[str, Any] = field(default_factory=dict)


def interactives(
    summary: Mapping[str, Any], found: Sequence[Entry], matrices: Sequence[Matrix], completions: "pandas.DataFrame"
) -> list[Interactive]:
    """All figures of one judge's entries, in the order of the page."""
    from demur.report.interactive_layers import by_layer

    palette = colours(list(summary["checkpoints"]))
    titles = {
        "none": ("rates", "Refusal rates without intervention"),
        "add": ("added", "Refusal rates with each direction added"),
        "ablate": ("ablated", "Refusal rates with each direction ablated"),
    }
    made = [_bars(*names, found, intervention, palette) for intervention, names in titles.items()]
    made.append(_transfer(matrices))
    made += [_cosines(summary), *by_layer(summary, palette, found, completions)]
    return [one for one in made if one is not None]


def label(text: str, width: int = 30) -> str:
    """A name as Plotly shows it to the letter, in lines of about this width."""
    import textwrap

    return "<br>".join(escape(line, quote=False) for line in textwrap.wrap(text, width)) or escape(text, quote=False)


def frame(height: int, **more: Any) -> dict[str, Any]:
    """What every layout has in common."""
    return {
        "height": height,
        "font": {"family": SANS, "size": 12, "color": INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "hovermode": "closest",
        "dragmode": False,
        "hoverlabel": {
            "bgcolor": PAPER,
            "bordercolor": SOFT,
            "font": {"family": SANS, "size": 12, "color": INK},
            "align": "left",
        },
        "showlegend": False,
        **more,
    }


def axis(title: str = "", **more: Any) -> dict[str, Any]:
    """An axis as all figures have it."""
    return {
        "title": {"text": title, "font": {"size": 12}, "standoff": 6},
        "gridcolor": LINE,
        "linecolor": LINE,
        "zeroline": False,
        "automargin": True,
        "fixedrange": True,
        **more,
    }


def numbered(kind: str, index: int) -> str:
    """Plotly's name of an axis: `x`, `x2`, ..."""
    return kind if index == 0 else f"{kind}{index + 1}"


def layout_key(kind: str, index: int) -> str:
    """The same as a key of a layout: `xaxis`, `xaxis2`, ..."""
    return f"{kind}axis" if index == 0 else f"{kind}axis{index + 1}"


def spread(index: int, count: int, gap: float) -> list[float]:
    """The part of the width or height that panel `index` of `count` takes."""
    size = (1 - gap * (count - 1)) / count
    return [index * (size + gap), index * (size + gap) + size]


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
    height = ROW * len(rows)
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
            f"{layout_key('y', index)}.domain": spread(len(sets) - 1 - index, len(sets), 60 / (len(sets) * (height + 60))),
            f"{layout_key('y', index)}.showticklabels": True,
        }
    return Interactive(name, title, data, layout, narrow if len(sets) > 1 else {})


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
        "text": [words.percent(entry.rate, entry.n) for entry in entries] + ["not measured"] * len(lacking),
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


def said(entry: Entry) -> str:
    """What a pointer on an entry is told."""
    what = BASELINE if entry.intervention == "none" else f"{label(entry.variant, 60)} {INTERVENTIONS[entry.intervention]}"
    lines = [
        f"<b>{label(entry.target, 60)}</b>, {escape(entry.instructions)} instructions",
        what + (f", {entry.dose}" if entry.dose else ""),
        f"{entry.refusals} of {entry.n} refused, {words.percent(entry.rate, entry.n)} {words.interval(entry.interval)}",
    ]
    if entry.change is not None:
        tested = "" if entry.p_holm is None else f" (Holm p {words.p_value(entry.p_holm)})"
        lines.append(f"change {words.points(entry.change)} points{escape(tested)}")
    return "<br>".join(lines)


def _transfer(matrices: Sequence[Matrix]) -> Interactive | None:
    """A panel an intervention, coefficient and instruction set: source of the direction x target, rates in the cells."""
    if not matrices:
        return None
    widest = max(len(matrix.columns) for matrix in matrices)
    across = max(1, min(len(matrices), 3, 24 // widest))
    lines = [matrices[start : start + across] for start in range(0, len(matrices), across)]
    crowded = widest * across > 12
    data: list[dict[str, Any]] = []
    layout, narrow, titles = frame(0), {}, []
    tall = [ROW * max(len(matrix.rows) for matrix in line) + 100 for line in lines]
    alone = [ROW * len(matrix.rows) + 110 for matrix in matrices]
    layout["height"], narrow["height"] = sum(tall), sum(alone)
    for index, matrix in enumerate(matrices):
        line, column = divmod(index, across)
        top = 1 - (sum(tall[:line]) + 44) / sum(tall)
        bottom = 1 - (sum(tall[: line + 1]) - 56) / sum(tall)
        narrow_top, narrow_bottom = (1 - at / sum(alone) for at in (sum(alone[:index]) + 44, sum(alone[: index + 1]) - 66))
        data.append(_heat(matrix, index, crowded=crowded))
        first = lines[line][0]
        layout[layout_key("x", index)] = axis(
            domain=spread(column, across, 0.03), anchor=numbered("y", index), showgrid=False, type="category", tickangle="auto"
        )
        layout[layout_key("y", index)] = axis(
            domain=[bottom, top],
            anchor=numbered("x", index),
            showgrid=False,
            type="category",
            autorange="reversed",
            showticklabels=column == 0 or matrix.rows != first.rows,
        )
        dose = f", {matrix.dose}" if matrix.dose else ""
        text = f"<b>{INTERVENTIONS[matrix.intervention]}{escape(dose)}</b><br>{escape(matrix.instructions)} instructions"
        place = {"xref": f"{numbered('x', index)} domain", "yref": f"{numbered('y', index)} domain"}
        where = {"x": 0, "y": 1, "xanchor": "left", "yanchor": "bottom", "yshift": 4, "align": "left"}
        titles.append({"text": text, **place, **where, "showarrow": False})
        narrow |= {
            f"{layout_key('x', index)}.domain": [0, 1],
            f"{layout_key('y', index)}.domain": [narrow_bottom, narrow_top],
            f"{layout_key('y', index)}.showticklabels": True,
        }
    layout["annotations"] = titles
    return Interactive("transfer", "Where a direction came from, and where it was moved to", data, layout, narrow)


def _heat(matrix: Matrix, index: int, *, crowded: bool) -> dict[str, Any]:
    grid = [[matrix.cells.get((row, column)) for column in matrix.columns] for row in matrix.rows]
    sign = "" if crowded else " %"
    return {
        "type": "heatmap",
        "x": [label(column, 14) for column in matrix.columns],
        "y": [label(row) + (" (control)" if row in matrix.controls else "") for row in matrix.rows],
        "z": [[None if entry is None else round(entry.rate, 4) for entry in row] for row in grid],
        "text": [[words.DASH if e is None else words.percent(e.rate, e.n).replace(" %", sign) for e in row] for row in grid],
        "customdata": [["not measured" if entry is None else said(entry) for entry in row] for row in grid],
        "texttemplate": "%{text}",
        "textfont": {"size": 10 if crowded else 12},
        "hovertemplate": "%{customdata}<extra></extra>",
        "hoverongaps": False,
        "zmin": 0,
        "zmax": 1,
        "colorscale": [[0, LOW], [1, HIGH]],
        "showscale": False,
        "xgap": 2,
        "ygap": 2,
        "xaxis": numbered("x", index),
        "yaxis": numbered("y", index),
    }


def _cosines(summary: Mapping[str, Any]) -> Interactive | None:
    names = summary.get("cosines", {}).get("names", [])
    if len(names) < 2:
        return None
    labels = direction_labels(summary)
    shown = [label(labels.get(name, name)) for name in names]
    values = [[round(float(value), 4) for value in row] for row in summary["cosines"]["matrix"]]
    heat = {
        "type": "heatmap",
        "x": shown,
        "y": shown,
        "z": values,
        "texttemplate": "%{z:.2f}" if len(names) <= 12 else "",
        "hovertemplate": "%{y} and %{x}: %{z:.3f}<extra></extra>",
        "zmin": -1,
        "zmax": 1,
        "colorscale": [[0, AGAINST], [0.5, LOW], [1, HIGH]],
        "showscale": False,
        "xgap": 2,
        "ygap": 2,
    }
    layout = frame(
        (34 if len(names) < 6 else ROW) * len(names) + 110,
        xaxis=axis(showgrid=False, type="category", tickangle="auto"),
        yaxis=axis(showgrid=False, type="category", autorange="reversed"),
    )
    return Interactive("cosines", "Cosines between the directions that were moved", [heat], layout)
