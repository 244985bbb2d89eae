"""Cosines between the directions of the study."""

from collections.abc import Sequence
from itertools import combinations
from typing import ClassVar

from demur.core.number_format import hundredths
from demur.report.cell_labels import direction_labels
from demur.report.figure_contents import HeatMap, HeatMaps, Tile
from demur.report.figure_spec import FigureSpec, Sheet, TableSpec
from demur.report.sections.rate_bars import shortened
from demur.report.sections.section import ReportView


class DirectionCosines:
    """The figure `cosines`."""

    part: ClassVar[str] = "where"

    def figures(self, view: ReportView) -> Sequence[FigureSpec]:
        """Every direction against every other one; none if there are fewer than two."""
        import pandas

        found = view.summary.cosines
        if len(found.names) < 2:
            return []
        labels = direction_labels(view.summary)
        names = tuple(labels.get(name, name) for name in found.names)
        title = "Cosines between the directions"
        tiles = tuple(tuple(Tile(value, hundredths(value)) for value in row) for row in found.matrix)
        content = HeatMaps((HeatMap(title, names, names, tiles, signed=True, written=len(names) <= 12, corner="Direction"),))
        pairs = [f"{names[i]} and {names[j]} {found.matrix[i][j]:.2f}" for i, j in combinations(range(len(names)), 2)]
        caption = (
            "Each direction at the layer at which it was read. Orange: opposite, white: orthogonal, blue: the same direction."
        )
        data = pandas.DataFrame([list(row) for row in found.matrix], columns=list(names))
        data.insert(0, "direction", list(names))
        sheet = Sheet("cosines", title, caption, f"{title}: {shortened(pairs)}.", data, content)
        return [FigureSpec.of(sheet)]

    def tables(self, view: ReportView) -> Sequence[TableSpec]:  # noqa: ARG002
        """No tables other than the numbers of the figure."""
        return []
