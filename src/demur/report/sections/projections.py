"""Projections of held-out instructions on each arm's own direction."""

from collections.abc import Sequence
from statistics import median
from typing import ClassVar

from demur.report.figure_contents import Point, PointGroup, PointLook, PointStrip, PointStrips
from demur.report.figure_spec import FigureSpec, Sheet, TableSpec
from demur.report.large_runs.evenly_spaced import evenly_spaced, spacing_note
from demur.report.sections.layer_view import SETS, PlacesOfArm, instruction_places
from demur.report.sections.section import ReportView

_LOOKS = (
    PointLook("refused", "filled"),
    PointLook("not refused", "hollow"),
    PointLook("no verdict", "cross", optional=True),
)


class Projections:
    """The figure `projections`."""

    part: ClassVar[str] = "where"

    def figures(self, view: ReportView) -> Sequence[FigureSpec]:
        """A strip for each arm and layer; no figure if layers were not measured."""
        import pandas

        rows = instruction_places(view.summary, view.entries, view.completions)
        if not rows:
            return []
        title = "Projections of held-out instructions on each arm's own direction"
        caption = (
            "One point for each instruction: filled if the checkpoint refuses it without an edit, hollow if it does not, "
            "a cross if there is no verdict."
        )
        shown = evenly_spaced(rows)
        caption += spacing_note(len(rows))
        content = PointStrips(
            tuple(PointStrip(row.name, tuple(_group(row, side) for side in SETS)) for row in shown),
            _LOOKS,
            "projection (0: mean of the harmless training instructions, 1: mean of the harmful ones)",
            ("projection", "(0: mean harmless, 1: mean harmful)"),
            (0, 1),
        )
        records = [
            (row.name, place.instructions, str(place.index), along, place.verdict)
            for row in rows
            for side in SETS
            for place, along in row.of(side)
        ]
        data = pandas.DataFrame(records, columns=["arm", "instructions", "index", "along", "verdict"])
        return [FigureSpec.of(Sheet("projections", title, caption, f"{title}. {_in_words(shown)}.", data, content))]

    def tables(self, view: ReportView) -> Sequence[TableSpec]:  # noqa: ARG002
        """No tables other than the numbers of the figure."""
        return []


def _group(row: PlacesOfArm, side: str) -> PointGroup:
    points = (
        Point(along, place.verdict, f"{side} instruction {place.index}, {place.verdict}", f"{side} {place.index}")
        for place, along in row.of(side)
    )
    return PointGroup(side, SETS[side], tuple(points))


def _in_words(rows: Sequence[PlacesOfArm]) -> str:
    parts = []
    for row in rows:
        for side in SETS:
            values = sorted(along for _, along in row.of(side))
            if values:
                parts.append(f"{row.name}, {side}: median {median(values):.2f}, from {values[0]:.2f} to {values[-1]:.2f}")
    return "; ".join(parts)
