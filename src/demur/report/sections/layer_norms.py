"""The norm of the difference of means, by layer."""

from collections.abc import Sequence
from typing import ClassVar

from demur.report.figure_contents import LayerLines, Line, LinePanel
from demur.report.figure_spec import FigureSpec, Sheet, TableSpec
from demur.report.large_runs.evenly_spaced import evenly_spaced, spacing_note
from demur.report.sections.layer_view import (
    arm_looks,
    arm_names,
    layer_table,
    norm_shares,
    numbers_of,
    ranges,
    study_layers,
)
from demur.report.sections.rate_bars import shortened
from demur.report.sections.section import ReportView


class LayerNorms:
    """The figure `norms`."""

    part: ClassVar[str] = "where"

    def figures(self, view: ReportView) -> Sequence[FigureSpec]:
        """The norm of every arm's direction, and its share of the stream's norm; no figure if layers were not measured."""
        measured = view.summary.by_layer
        if measured is None:
            return []
        norms, shares = [], []
        columns: list[tuple[str, Sequence[object]]] = []
        names = arm_names(view.summary)
        for arm, name, (colour, dash) in zip(measured.arms, names, arm_looks(measured, view.palette), strict=True):
            norms.append(Line(name, tuple(norm or None for norm in arm.raw_norm), colour, dash))
            shares.append(Line(name, norm_shares(arm), colour, dash))
            columns += [(f"{name}: norm", numbers_of(arm.raw_norm))]
            columns += [(f"{name}: mean {side}", numbers_of(arm.mean_norm[side])) for side in ("harmful", "harmless")]
        title = "Norm of the difference of means, by layer"
        caption = (
            "Above: the raw norm of each direction. "
            "Below: this norm as a share of the mean norm of the activations at the same layer."
        ) + spacing_note(len(names))
        said = shortened([f"{name} {ranges(arm.raw_norm)}" for arm, name in zip(measured.arms, names, strict=True)])
        content = LayerLines(
            (
                LinePanel("norm of the direction", tuple(evenly_spaced(norms)), scale="log"),
                LinePanel(
                    "share of the stream's norm",
                    tuple(evenly_spaced(shares)),
                    unit="of the mean norm",
                    scale="share",
                    short_title="share of the stream",
                ),
            ),
            study_layers(view.summary),
            inches=3.4,
            pixels=480,
        )
        data = layer_table(columns, len(measured.arms[0].raw_norm))
        return [FigureSpec.of(Sheet("norms", title, caption, f"{title}. {said}.", data, content))]

    def tables(self, view: ReportView) -> Sequence[TableSpec]:  # noqa: ARG002
        """No tables other than the numbers of the figure."""
        return []
