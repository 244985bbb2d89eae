"""Draws the ratios that a benchmark wrote with `--out` as one figure: medians, with the least and most of the repeats.

    python -m benchmarks.plot FIGURE.svg RESULT.json...

Results of several runs of `benchmarks.speed` may be given. Each panel shows one part, with ratios from the run of that part. A
result of `benchmarks.growth` gets a figure of its own.
"""

import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from demur.report.style import GREY, NEUTRAL, PALETTE, SINGLE, STYLE, save, settled

BASES = ("demur", "together", "unsteered", "packed", "float32")
TITLES = {
    "none": "no intervention, against demur",
    "study": "twelve interventions, against one call",
    "steered": "steered, against unsteered",
    "capture": "every layer's stream, against demur",
    "packed": "weights as they are stored, against prepacked weights",
    "bfloat16": "weights in bfloat16, against float32",
}


def draw(parts: dict[str, dict[str, Any]]) -> Figure:
    """One panel for each part: how many times as long as the base each way takes."""
    with rc_context(STYLE):
        height = 0.5 + sum(0.35 + 0.2 * len(part) for part in parts.values())
        figure = Figure(figsize=(SINGLE * 1.5, height), layout="constrained")
        heights = [1 + len(part) for part in parts.values()]
        grid = figure.subplots(len(parts), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axes, (name, part) in zip(grid, parts.items(), strict=True):
            for y, (way, row) in enumerate(part.items()):
                axes.barh(y, row["ratio"], color=PALETTE[0] if way in BASES else GREY, height=0.6)
                if "least" in row:
                    axes.plot([row["least"], row["most"]], [y, y], color="black", linewidth=0.8)
                axes.text(max(row["ratio"], row.get("most", 0)), y, f"  {row['ratio']:.2f}", va="center", fontsize=6.5)
            axes.set_yticks(range(len(part)), list(part))
            axes.invert_yaxis()
            axes.axvline(1, color=NEUTRAL, linewidth=0.6, linestyle=":")
            axes.margins(x=0.12)
            axes.set_title(TITLES.get(name, name), loc="left")
        grid[-1].set_xlabel("times as long, median and range of the repeats")
        return settled(figure)


def draw_growth(axes_found: dict[str, list[dict[str, Any]]]) -> Figure:
    """One panel for each axis: time and arithmetic of each job, as multiples of the smallest job."""
    with rc_context(STYLE):
        figure = Figure(figsize=(SINGLE * 2, SINGLE * 0.55 * 2), layout="constrained")
        for axes, (name, rows) in zip(figure.subplots(2, 2).flat, axes_found.items(), strict=True):
            values = [row["value"] for row in rows]
            middle = [median(row["ratios"]) for row in rows]
            spread = [[m - min(row["ratios"]), max(row["ratios"]) - m] for m, row in zip(middle, rows, strict=True)]
            arithmetic = [row["arithmetic"] for row in rows]
            axes.plot(values, arithmetic, color=NEUTRAL, linestyle=":", label="arithmetic without sharing")
            bars = np.transpose(spread)
            axes.errorbar(values, middle, bars, color=PALETTE[0], marker="o", markersize=3, label="time")
            axes.set_xlim(left=0)
            axes.set_ylim(bottom=0)
            axes.set_xlabel(name.replace("_", " "))
        figure.axes[0].legend(loc="upper left")
        figure.supylabel("multiple of the smallest job")
        return settled(figure)


def main() -> None:
    """Draw the results in the given files."""
    target, *files = map(Path, sys.argv[1:])
    parts: dict[str, dict[str, Any]] = {}
    for file in files:
        found = json.loads(file.read_text(encoding="utf-8"))
        if "growth" in found:
            target.write_bytes(save(draw_growth(found["growth"]), "svg"))
            return
        parts |= {name: part for name, part in found.items() if name not in ("machine", "threads", "settings")}
    target.write_bytes(save(draw(parts), "svg"))


if __name__ == "__main__":
    main()
