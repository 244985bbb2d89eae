"""Heat maps that answer to a pointer: where a direction came from against where it was moved to, and cosines between directions.

Every cell has its number in it. A pair that was not measured has none, and no colour.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from demur.core import number_format
from demur.report.cell_view import INTERVENTIONS, direction_labels
from demur.report.plotly_base import (
    AGAINST,
    HIGH,
    INK,
    LOW,
    ROW,
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
from demur.report.transfer_matrix import Matrix


def transfer(matrices: Sequence[Matrix]) -> Interactive | None:
    """A panel an intervention, coefficient and instruction set: source of the direction x target, rates in the cells."""
    if not matrices:
        return None
    widest = max(len(matrix.columns) for matrix in matrices)
    across = max(1, min(len(matrices), 3, 24 // widest))
    lines = [matrices[start : start + across] for start in range(0, len(matrices), across)]
    crowded = widest * across > 12
    data: list[dict[str, Any]] = []
    layout, titles = frame(0), []
    narrow: dict[str, Any] = {}
    row = row_height([label(name) for matrix in matrices for name in matrix.rows])
    tall = [row * max(len(matrix.rows) for matrix in line) + 100 for line in lines]
    alone = [row * len(matrix.rows) + 110 for matrix in matrices]
    layout["height"], narrow["height"] = sum(tall), sum(alone)
    for index, matrix in enumerate(matrices):
        line, column = divmod(index, across)
        top = 1 - (sum(tall[:line]) + 44) / sum(tall)
        bottom = 1 - (sum(tall[: line + 1]) - 56) / sum(tall)
        narrow_top, narrow_bottom = (1 - at / sum(alone) for at in (sum(alone[:index]) + 44, sum(alone[: index + 1]) - 66))
        data.append(_heat(matrix, index, crowded=crowded))
        first = lines[line][0]
        layout[layout_key("x", index)] = axis(
            domain=spread(column, across, 0.03), anchor=numbered("y", index), showgrid=False, type="category"
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
        "text": [
            [number_format.DASH if e is None else number_format.percent(e.rate, e.n).replace(" %", sign) for e in row]
            for row in grid
        ],
        "customdata": [["not measured" if entry is None else said(entry) for entry in row] for row in grid],
        "texttemplate": "%{text}",
        "textfont": {"size": 10 if crowded else 12, "color": INK},
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


def cosines(summary: Mapping[str, Any]) -> Interactive | None:
    """Between all directions that were moved; None where there are less than two."""
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
        "textfont": {"color": INK},
        "hovertemplate": "%{y} and %{x}: %{z:.3f}<extra></extra>",
        "zmin": -1,
        "zmax": 1,
        "colorscale": [[0, AGAINST], [0.5, LOW], [1, HIGH]],
        "showscale": False,
        "xgap": 2,
        "ygap": 2,
    }
    layout = frame(
        max(34 if len(names) < 6 else ROW, row_height(shown)) * len(names) + 110,
        xaxis=axis(showgrid=False, type="category"),
        yaxis=axis(showgrid=False, type="category", autorange="reversed"),
    )
    return Interactive("cosines", "Cosines between the directions that were moved", [heat], layout)
