"""The figures of a run: refusal rates of every checkpoint, with directions added and ablated, transfer matrices, cosines.

Each drawing carries its words (title, caption, text alternative) and the numbers it shows, so that nothing is in a picture alone.
Colour says which checkpoint a direction came from, in every figure alike; controls are grey and hatched. Bars have intervals.
"""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from demur.analysis.published_rates import SAME
from demur.core.number_format import DASH, MINUS, percent
from demur.report.cell_view import BASELINE, Entry, direction_labels, instruction_sets, targets_of
from demur.report.style import DOUBLE, GREY, LIGHT, NEUTRAL, SINGLE, STYLE, colours, diverging, settled, shade
from demur.report.transfer_matrix import Matrix

if TYPE_CHECKING:
    import pandas

BARS_A_FIGURE = 44
"""A figure taller than a page is cut between targets."""

Bars = Mapping[str, Mapping[str, Entry]]
"""Bar label -> instruction set -> entry."""


@dataclass(frozen=True)
class Drawing:
    """A figure under its file name, with its words and the numbers in it."""

    name: str
    title: str
    caption: str
    alternative: str
    data: "pandas.DataFrame"
    figure: Any


def draw(summary: Mapping[str, Any], found: Sequence[Entry], matrices: Sequence[Matrix]) -> list[Drawing]:
    """All figures of one judge's entries, in the order of the page."""
    palette = colours(list(summary["checkpoints"]))
    judge = found[0].judge
    drawings = _rates(found, palette, judge)
    drawings += _edited(found, palette, judge, "add", "added", "Refusal rates with each direction added")
    drawings += _edited(found, palette, judge, "ablate", "ablated", "Refusal rates with each direction ablated")
    drawings += [_transfer(matrix, judge) for matrix in matrices]
    if len(summary.get("cosines", {}).get("names", [])) > 1:
        drawings.append(_cosines(summary))
    return drawings


def _rates(found: Sequence[Entry], palette: Mapping[str, str], judge: str) -> list[Drawing]:
    baselines = [entry for entry in found if entry.intervention == "none"]
    if not baselines:
        return []
    bars = _bars(baselines, lambda entry: entry.target)
    title = "Refusal rates without intervention"
    caption = f"How often each checkpoint refuses; {_trials(baselines)}, 95 % Wilson intervals, judge {judge}."
    caption += _diamonds(baselines)
    figure = _bar_figure({"": bars}, instruction_sets(baselines), lambda entry: palette.get(str(entry.cell["target"]), NEUTRAL))
    return [Drawing("rates", title, caption, _spoken(title, baselines), _numbers(baselines), figure)]


def _edited(
    found: Sequence[Entry], palette: Mapping[str, str], judge: str, intervention: str, name: str, title: str
) -> list[Drawing]:
    """A block of bars for each target: its baseline, then every direction; the columns are instruction sets."""
    edits = [entry for entry in found if entry.intervention == intervention]
    sets = instruction_sets(edits)
    baselines = [entry for entry in found if entry.intervention == "none" and entry.instructions in sets]
    blocks = {
        target: _bars([e for e in (*baselines, *edits) if e.target == target], lambda entry: entry.variant)
        for target in targets_of(edits)
    }
    doses = list(dict.fromkeys(entry.dose for entry in edits if entry.dose))
    strength = f"; coefficient {doses[0]}" if len(doses) == 1 else ""
    drawings = []
    pages = _pages(blocks)
    for index, page in enumerate(pages):
        shown = [entry for bars in page.values() for row in bars.values() for entry in row.values()]
        part = f" ({index + 1} of {len(pages)})" if len(pages) > 1 else ""
        caption = (
            f"One block a target, one bar a direction, named by where it came from{strength}; {_trials(shown)}, "
            f"95 % Wilson intervals, judge {judge}. Grey and hatched: controls.{_diamonds(shown)}"
        )
        figure = _bar_figure(page, sets, lambda entry: palette.get(entry.source or "", NEUTRAL))
        suffix = f"-{index + 1}" if index else ""
        drawings.append(Drawing(name + suffix, title + part, caption, _spoken(title, shown), _numbers(shown), figure))
    return drawings


def _bars(entries: Sequence[Entry], label: Callable[[Entry], str]) -> dict[str, dict[str, Entry]]:
    rows: dict[str, dict[str, Entry]] = {}
    for entry in sorted(entries, key=lambda e: (e.intervention != "none", e.control)):
        rows.setdefault(label(entry), {})[entry.instructions] = entry
    return rows


def _pages(blocks: Mapping[str, Bars]) -> list[dict[str, Bars]]:
    pages: list[dict[str, Bars]] = []
    for target, bars in blocks.items():
        if not pages or sum(map(len, pages[-1].values())) + len(bars) > BARS_A_FIGURE:
            pages.append({})
        pages[-1][target] = bars
    return pages


def _bar_figure(blocks: Mapping[str, Bars], sets: Sequence[str], colour: Callable[[Entry], str]) -> Figure:
    """Horizontal bars, so that long names stay readable: rows of panels are blocks, columns are instruction sets."""
    counts = [len(bars) for bars in blocks.values()]
    titled = any(blocks)
    with rc_context(STYLE):
        height = 0.5 + sum(0.19 * count + (0.36 if titled else 0.2) for count in counts)
        layout = ConstrainedLayoutEngine(h_pad=0.03, w_pad=0.03, wspace=0.03)
        figure = Figure(figsize=(DOUBLE if len(sets) > 1 else SINGLE, height), layout=layout)
        grid = figure.subplots(len(blocks), len(sets), squeeze=False, sharex=True, height_ratios=counts)
        for row, (title, bars) in enumerate(blocks.items()):
            for column, name in enumerate(sets):
                axes = grid[row][column]
                _bar_panel(axes, [(label, cells.get(name)) for label, cells in bars.items()], colour, named=column == 0)
                if title and column == 0:
                    axes.set_title(f"on {title}", loc="left", fontweight="bold", pad=3)
                if row == len(blocks) - 1:
                    axes.set_xlabel(f"refused of {name} instructions (%)")
        return settled(figure)


def _bar_panel(axes: Any, bars: Sequence[tuple[str, Entry | None]], colour: Callable[[Entry], str], *, named: bool) -> None:
    there = [(y, entry) for y, (_, entry) in enumerate(bars) if entry is not None]
    for y, (_, entry) in enumerate(bars):
        if entry is None:
            axes.text(1.5, y, "not measured", va="center", color=NEUTRAL, fontsize=6.5)
            continue
        behind = 100 * max(entry.interval[1], entry.rate) + 1.8
        axes.text(behind, y, percent(entry.rate, entry.n), va="center", fontsize=6.5)
    if there:
        # All bars of a panel at once: drawn one by one, they took a fifth of the time of a large study's report.
        at, rates = [y for y, _ in there], [100 * entry.rate for _, entry in there]
        axes.barh(
            at,
            rates,
            height=0.72,
            linewidth=0,
            color=[GREY if entry.control else colour(entry) for _, entry in there],
            hatch=["/////" if entry.control else "" for _, entry in there],
            edgecolor="white",
        )
        # rounding can put a bound past the rate by an ulp, and negative lengths are refused
        below = [max(rate - 100 * entry.interval[0], 0) for rate, (_, entry) in zip(rates, there, strict=True)]
        above = [max(100 * entry.interval[1] - rate, 0) for rate, (_, entry) in zip(rates, there, strict=True)]
        axes.errorbar(rates, at, xerr=[below, above], fmt="none", ecolor="black", elinewidth=0.8, capsize=1.6)
    # On the bar's upper edge, clear of the number that stands behind the bar.
    marks = [(100 * row["published"]["rate"], y - 0.36, row["settings"] == SAME) for y, entry in there for row in entry.published]
    for same, face in ((True, "black"), (False, "white")):
        if chosen := [(x, y) for x, y, alike in marks if alike is same]:
            axes.plot(*zip(*chosen, strict=True), "D", markersize=3.4, mfc=face, mec="black", mew=0.7)
    axes.set_ylim(len(bars) - 0.45, -0.55)
    axes.set_xlim(0, 116)
    axes.set_xticks(range(0, 101, 25))
    axes.grid(axis="x", color=LIGHT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_yticks(range(len(bars)), [_wrapped(label, 34) for label, _ in bars] if named else [""] * len(bars))
    axes.tick_params(axis="y", length=0)


def _transfer(matrix: Matrix, judge: str) -> Drawing:
    shown = [entry for row in matrix.rows for column in matrix.columns if (entry := matrix.cells.get((row, column)))]
    crowded = len(matrix.columns) > 8

    def text(row: str, column: str) -> str:
        entry = matrix.cells.get((row, column))
        if entry is None:
            return DASH
        return percent(entry.rate, entry.n) + ("" if crowded else f"\nn = {entry.n}")

    values = [[e.rate if (e := matrix.cells.get((row, column))) else None for column in matrix.columns] for row in matrix.rows]
    texts = [[text(row, column) for column in matrix.columns] for row in matrix.rows]
    rules = [1] if matrix.rows[0] == BASELINE else []
    if matrix.controls:
        rules.append(len(matrix.rows) - len(matrix.controls))
    figure = _grid_figure(matrix.rows, matrix.columns, values, texts, shade, labels=("direction from", "target"), rules=rules)
    caption = f"Refused, by where the direction came from (rows) and which checkpoint it was applied to (columns); judge {judge}."
    return Drawing(matrix.name, matrix.title, caption, _spoken(matrix.title, shown), _numbers(shown), figure)


def _cosines(summary: Mapping[str, Any]) -> Drawing:
    import pandas

    labels = direction_labels(summary)
    names = [labels.get(name, name) for name in summary["cosines"]["names"]]
    values = [[float(value) for value in row] for row in summary["cosines"]["matrix"]]
    texts = [[f"{value:.2f}".replace("-", MINUS) for value in row] for row in values] if len(names) <= 12 else None
    figure = _grid_figure(names, names, values, texts, diverging, labels=("", ""), rules=[])
    pairs = [f"{names[i]} and {names[j]} {values[i][j]:.2f}" for i, j in combinations(range(len(names)), 2)]
    title = "Cosines between the directions"
    caption = "Each direction at the layer it was read from. Orange: opposed, white: orthogonal, blue: the same way."
    data = pandas.DataFrame(values, columns=names)
    data.insert(0, "direction", names)
    return Drawing("cosines", title, caption, f"{title}: {_shortened(pairs)}.", data, figure)


def _grid_figure(
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float | None]],
    texts: Sequence[Sequence[str]] | None,
    colour: Callable[[float], str],
    *,
    labels: tuple[str, str],
    rules: Sequence[int],
) -> Figure:
    """A heat map of vector rectangles, with a white rule above each row in `rules`. Column width, or two where it is wide."""
    from matplotlib.patches import Rectangle

    wide = len(columns) > 6 or len(rows) > 16
    with rc_context(STYLE):
        height = 0.75 + (0.34 if texts else 0.2) * len(rows)
        figure = Figure(figsize=(DOUBLE if wide else SINGLE, height), layout="constrained")
        axes = figure.subplots()
        for y, row in enumerate(values):
            for x, value in enumerate(row):
                fill = LIGHT if value is None else colour(value)
                axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=fill, edgecolor="white", linewidth=1))
                if texts:
                    axes.text(x, y, texts[y][x], ha="center", va="center", fontsize=6.5, linespacing=1.15)
        for rule in rules:
            axes.axhline(rule - 0.5, color="white", linewidth=4)
        axes.set_xlim(-0.5, len(columns) - 0.5)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        long = max(map(len, columns)) * len(columns) > (90 if wide else 36)
        turned: dict[str, Any] = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if long else {}
        axes.set_xticks(range(len(columns)), [_wrapped(name, 28) for name in columns], **turned)
        axes.set_yticks(range(len(rows)), [_wrapped(name, 26) for name in rows])
        axes.set_ylabel(labels[0])
        axes.set_xlabel(labels[1])
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        return settled(figure)


def _wrapped(label: str, width: int) -> str:
    return "\n".join(textwrap.wrap(label, width)) or label


def _trials(shown: Sequence[Entry]) -> str:
    counts = sorted({entry.n for entry in shown})
    return f"n = {counts[0]}" + (f" to {counts[-1]}" if len(counts) > 1 else "") + " instructions a bar"


def _diamonds(shown: Sequence[Entry]) -> str:
    """What the marks beside the bars are, where there are any."""
    settings = {row["settings"] for entry in shown for row in entry.published}
    if not settings:
        return ""
    hollow = "" if settings == {SAME} else ", hollow where the settings are not known to be the same"
    return f" Diamonds: published rates{hollow}."


def _shortened(parts: Sequence[str], limit: int = 24) -> str:
    more = len(parts) - limit
    return "; ".join(parts[:limit]) + (f"; and {more} more, all in the table of its data" if more > 0 else "")


def _spoken(title: str, shown: Sequence[Entry]) -> str:
    """A text alternative that says the numbers."""
    parts = [
        (f"{entry.target}, " if entry.intervention == "none" else f"{entry.variant} on {entry.target}, ")
        + f"{entry.instructions}: {percent(entry.rate, entry.n)}"
        + "".join(f" (published {100 * row['published']['rate']:.0f} %)" for row in entry.published)
        for entry in shown
    ]
    return f"{title}. {_shortened(parts)}."


def _numbers(shown: Sequence[Entry]) -> "pandas.DataFrame":
    from demur.report.tables import result_frame

    # Labels as the figure has them: they tell apart what it shows apart.
    labels = {"arm": [e.target for e in shown], "label": [e.variant for e in shown], "dose": [e.dose for e in shown]}
    frame = result_frame(shown).assign(**labels)
    if any(entry.published for entry in shown):
        frame["published"] = [", ".join(f"{100 * row['published']['rate']:.1f} %" for row in e.published) for e in shown]
    return frame
