"""How well each layer separates held-out harmful instructions from harmless ones."""

from collections.abc import Sequence
from typing import ClassVar

from demur.report.figure_contents import Band, LayerLines, Line, LinePanel
from demur.report.figure_spec import FigureSpec, Sheet, TableSpec
from demur.report.large_runs.evenly_spaced import evenly_spaced, spacing_note
from demur.report.sections.layer_view import (
    arm_looks,
    arm_names,
    bounds_of,
    intervals_of,
    layer_table,
    null_band,
    numbers_of,
    ranges,
    study_layers,
)
from demur.report.sections.rate_bars import shortened
from demur.report.sections.section import ReportView


class LayerSeparationFigure:
    """The figure `separation`."""

    part: ClassVar[str] = "where"

    def figures(self, view: ReportView) -> Sequence[FigureSpec]:
        """AUROC and gap of every arm; no figure if layers were not measured."""
        measured = view.summary.by_layer
        if measured is None:
            return []
        bands = [Band("random directions", tuple(null_band(measured)), in_legend=True)]
        intervals, aurocs, gaps = list[Band](), list[Line](), list[Line]()
        columns: list[tuple[str, Sequence[object]]] = []
        names = arm_names(view.summary)
        for arm, name, (colour, dash) in zip(measured.arms, names, arm_looks(measured, view.palette), strict=True):
            bounds = bounds_of(arm.auroc_ci95)
            intervals.append(Band(name, bounds, colour))
            aurocs.append(Line(name, arm.auroc, colour, dash, tuple(intervals_of(bounds))))
            gaps.append(Line(name, arm.gap, colour, dash))
            columns += [(f"{name}: AUROC", numbers_of(arm.auroc)), (f"{name}: 95 %", intervals_of(bounds))]
            columns += [(f"{name}: random", intervals_of(bounds_of(arm.null_auroc95))), (f"{name}: gap", numbers_of(arm.gap))]
        title = "Separation of held-out harmful and harmless instructions, by layer"
        caption = (
            "Above: AUROC, the probability that a held-out harmful instruction has a larger projection on the layer's own "
            "direction than a harmless one, with 95 % intervals. "
            "Below: the distance between the two means in pooled standard deviations. Grey: 95 % of random directions"
        ) + (", from the lowest bound of any arm to the highest." if len(names) > 1 else ".")
        caption += spacing_note(len(names))
        said = shortened([f"AUROC of {name} {ranges(arm.auroc)}" for arm, name in zip(measured.arms, names, strict=True)])
        content = LayerLines(
            (
                LinePanel("AUROC", tuple(evenly_spaced(aurocs)), (*bands, *evenly_spaced(intervals)), places=2),
                LinePanel("gap (pooled SD)", tuple(evenly_spaced(gaps)), unit="standard deviations"),
            ),
            study_layers(view.summary),
            inches=3.6,
            pixels=520,
        )
        data = layer_table(columns, len(measured.arms[0].auroc))
        return [FigureSpec.of(Sheet("separation", title, caption, f"{title}. {said}.", data, content))]

    def tables(self, view: ReportView) -> Sequence[TableSpec]:  # noqa: ARG002
        """No tables other than the numbers of the figure."""
        return []
