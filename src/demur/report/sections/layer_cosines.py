"""Cosines between the checkpoints' directions, by layer."""

from collections.abc import Sequence
from typing import ClassVar

from demur.report.figure_contents import Band, LayerLines, Line, LinePanel
from demur.report.figure_spec import FigureSpec, Sheet, TableSpec
from demur.report.sections.cosine_nulls import null_table, shuffled_band
from demur.report.sections.layer_view import cosine_pairs, layer_table, numbers_of, ranges, study_layers
from demur.report.sections.section import ReportView
from demur.report.style import PALETTE


class LayerCosines:
    """The figure `cosines-by-layer`."""

    part: ClassVar[str] = "where"

    def figures(self, view: ReportView) -> Sequence[FigureSpec]:
        """A line for each pair of arms; no figure if layers were not measured or if there is only one arm."""
        measured, pairs = view.summary.by_layer, cosine_pairs(view.summary)
        if measured is None or not pairs:
            return []
        count, null = len(pairs[0][1]), measured.cosine_null95
        shuffled = shuffled_band(view.summary)
        bands = (
            *(() if null is None else (Band("random directions", ((-null, null),) * count, in_legend=True),)),
            *(() if shuffled is None else (Band("shuffled labels", shuffled, in_legend=True),)),
        )
        lines = tuple(Line(name, values, PALETTE[index % 6], index // 6 % 4) for index, (name, values) in enumerate(pairs))
        title = "Cosine between the checkpoints' directions, by layer"
        caption = (
            "1: the same direction, 0: orthogonal. Grey: the range of 95 % of pairs of random directions. The lines are pairs of "
            "different checkpoints, under the same prompt format if there are such pairs; the table has every pair."
        )
        if shuffled is not None:
            caption += (
                " The other band: the range of 95 % of the cosines of the same pairs for shuffled labels. A line inside or below "
                "it shows nothing in common but the instructions."
            )
        there = len(cosine_pairs(view.summary, most=None))
        if there > len(pairs):
            caption += f" The figure shows only the first {len(pairs)} of {there} such pairs."
        data = layer_table([(name, numbers_of(values)) for name, values in cosine_pairs(view.summary, every=True)], count)
        said = "; ".join(f"{name}: {ranges(values)}" for name, values in pairs)
        content = LayerLines(
            (LinePanel("cosine", lines, bands),),
            study_layers(view.summary),
            inches=2.2 + 0.1 * len(pairs),
            pixels=300 + 12 * len(pairs),
        )
        return [FigureSpec.of(Sheet("cosines-by-layer", title, caption, f"{title}. {said}.", data, content))]

    def tables(self, view: ReportView) -> Sequence[TableSpec]:
        """The cosine of each pair at the study's layers beside its null, if the run measured `direction-agreement`."""
        found = null_table(view.summary)
        return [] if found is None else [found]
