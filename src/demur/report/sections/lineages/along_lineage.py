"""What changes along the checkpoints of a study: refusal rates, what each checkpoint's direction does in the others, cosines."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from demur.analysis.lineages.lineage_record import Lineage, Reach
from demur.core import number_format
from demur.report.cell_view import Entry, instruction_sets
from demur.report.figure_contents import Band, LayerLines, Line, LinePanel
from demur.report.figure_spec import FigureSpec, Sheet, TableSpec
from demur.report.sections.layer_view import SETS
from demur.report.sections.page_address import cell_address
from demur.report.sections.rate_bars import shortened
from demur.report.sections.section import ReportView
from demur.report.style import NEUTRAL, PALETTE

if TYPE_CHECKING:
    import pandas

_TITLE = "Along the lineage"
_CAPTION = (
    "Refusal rates without an edit, with 95 % Wilson intervals. Then what the direction of each checkpoint changes in the other "
    "checkpoints on average, with 95 % intervals over instructions. Then the cosine between the direction of each checkpoint and "
    "that of the checkpoint before it (blue), and that of the last checkpoint (grey, dashed). The checkpoints are in the order "
    "of the study and equally spaced."
)
_DASHES = ("solid", "dashed", "dotted", "dashed and dotted")
_MOST_EDITS = len(_DASHES)
"""Of more edits and instruction sets, the figure has the first ones; the table has all."""

_MOST_ROWS = 60
"""A table with more rows is only in `tables/`."""


class AlongLineage:
    """The figure `lineage` and the tables `lineage-trends` and `lineage-directions`."""

    part: ClassVar[str] = _TITLE

    def figures(self, view: ReportView) -> Sequence[FigureSpec]:
        """One figure; none for fewer than three checkpoints."""
        found = view.summary.lineage
        if found is None:
            return []
        series = _series(view, found)
        every = (_rates(series, found), _reaches(view, found), _cosines(found))
        panels = [panel for panel in every if panel.lines]
        caption = _CAPTION + _which_edits(view, found)
        content = LayerLines(
            tuple(panels),
            inches=0.9 + 1.6 * len(panels),
            pixels=110 + 200 * len(panels),
            horizontal=tuple(map(float, range(len(found.checkpoints)))),
            axis="checkpoint",
            names=found.checkpoints,
        )
        said = f"{_TITLE}. {shortened([_in_words(line, found) for panel in panels for line in panel.lines])}."
        return [
            FigureSpec.of(Sheet("lineage", "What changes along the lineage", caption, said, _numbers(panels, found), content))
        ]

    def tables(self, view: ReportView) -> Sequence[TableSpec]:
        """The trends with their tests, and what the direction of each checkpoint changes in the others."""
        found = view.summary.lineage
        return [] if found is None else [table for table in (_trend_table(found), _reach_table(view, found)) if table is not None]


def _series(view: ReportView, found: Lineage) -> dict[str, list[Entry | None]]:
    """The unedited cells of each instruction set: of each checkpoint the cell of its first arm."""
    unedited = [entry for entry in view.entries if not entry.edited]
    series: dict[str, list[Entry | None]] = {}
    for instructions in instruction_sets(unedited):
        first: dict[str, Entry] = {}
        for entry in unedited:
            if entry.instructions == instructions:
                first.setdefault(entry.cell.target, entry)
        series[instructions] = [first.get(name) for name in found.checkpoints]
    return series


def _colour(place: int, instructions: str) -> str:
    return SETS.get(instructions, PALETTE[(2 + place) % len(PALETTE)])


def _rates(series: dict[str, list[Entry | None]], found: Lineage) -> LinePanel:
    lines, bands = [], []
    for place, (instructions, cells) in enumerate(series.items()):
        name, colour = f"{instructions} instructions", _colour(place, instructions)
        notes = tuple(
            f"{checkpoint}, " + ("not run" if cell is None else f"{number_format.interval(cell.interval)}, n = {cell.n}")
            for checkpoint, cell in zip(found.checkpoints, cells, strict=True)
        )
        selects = tuple("" if cell is None else cell_address(cell) for cell in cells)
        lines.append(Line(name, tuple(None if cell is None else cell.rate for cell in cells), colour, 0, notes, selects=selects))
        bands.append(Band(name, tuple(None if cell is None else cell.interval for cell in cells), colour))
    return LinePanel("refused", tuple(lines), tuple(bands), scale="share", heading="Refusal rate without an edit", top=1.0)


def _edits(found: Lineage) -> dict[tuple[str, str, str], list[Reach]]:
    """The entries of each edit and instruction set."""
    edits: dict[tuple[str, str, str], list[Reach]] = {}
    for one in found.reaches:
        edits.setdefault((one.action, one.dose, one.instructions), []).append(one)
    return edits


def _edit_name(view: ReportView, edit: tuple[str, str, str]) -> str:
    action, dose, instructions = edit
    words = view.summary.edits.get(action)
    done = action if words is None else words.done
    return f"{done}{f' {dose}' if dose else ''}, {instructions} instructions"


def _which_edits(view: ReportView, found: Lineage) -> str:
    """The sentence of the caption that says which line is which edit."""
    named = [f"{_edit_name(view, edit)} ({dash})" for edit, dash in zip(_edits(found), _DASHES, strict=False)]
    return f" Directions were {'; '.join(named)}." if named else ""


def _reaches(view: ReportView, found: Lineage) -> LinePanel:
    lines, bands = [], []
    for place, (edit, reaches) in enumerate(list(_edits(found).items())[:_MOST_EDITS]):
        by_source = {one.source: one for one in reaches}
        there = [by_source.get(name) for name in found.checkpoints]
        name, colour = f"direction {_edit_name(view, edit)}", _colour(place, edit[2])
        notes = tuple(
            f"{checkpoint}, " + ("not run" if one is None else f"{number_format.interval(one.ci95)}, in {one.targets} others")
            for checkpoint, one in zip(found.checkpoints, there, strict=True)
        )
        lines.append(Line(name, tuple(None if one is None else one.change for one in there), colour, place, notes))
        bands.append(Band(name, tuple(None if one is None else one.ci95 for one in there), colour))
    heading = "Change in the other checkpoints, by the source of the direction"
    return LinePanel("change", tuple(lines), tuple(bands), unit="as a fraction", heading=heading)


def _cosines(found: Lineage) -> LinePanel:
    names = found.checkpoints
    lines = []
    for name, values, colour, dash in (
        ("with the checkpoint before", found.cosine_to_previous, PALETTE[0], 0),
        ("with the last checkpoint", found.cosine_to_last, NEUTRAL, 1),
    ):
        if any(value is not None for value in values):
            lines.append(Line(name, values, colour, dash, names))
    return LinePanel("cosine", tuple(lines), places=2, heading="Cosine with the direction of another checkpoint")


def _in_words(line: Line, found: Lineage) -> str:
    there = [(value, name) for value, name in zip(line.values, found.checkpoints, strict=True) if value is not None]
    low, high = min(there), max(there)
    return f"{line.name}: from {low[0]:.2f} ({low[1]}) to {high[0]:.2f} ({high[1]})"


def _numbers(panels: Sequence[LinePanel], found: Lineage) -> "pandas.DataFrame":
    import pandas

    columns: dict[str, Sequence[object]] = {"checkpoint": found.checkpoints}
    for panel in panels:
        bands = {band.name: band for band in panel.bands}
        for line in panel.lines:
            columns[f"{panel.title}: {line.name}"] = ["" if value is None else value for value in line.values]
            if line.name in bands:
                ends = [("", "") if pair is None else pair for pair in bands[line.name].bounds]
                columns[f"{panel.title}: {line.name}, low"] = [low for low, _ in ends]
                columns[f"{panel.title}: {line.name}, high"] = [high for _, high in ends]
    return pandas.DataFrame(columns)


def _trend_table(found: Lineage) -> TableSpec | None:
    import pandas

    if not found.trends:
        return None
    data = [{**one.model_dump(exclude={"ci95"}), "ci95 low": one.ci95[0], "ci95 high": one.ci95[1]} for one in found.trends]
    readable = [
        {
            "Instructions": one.instructions,
            "Prompt": one.prompt or "each checkpoint's own",
            "n": str(one.n),
            "Change from first to last": number_format.points(one.slope),
            "95 % interval": number_format.interval(one.ci95),
            "p": number_format.p_value(one.p),
            "Holm p": number_format.p_value(one.p_holm),
        }
        for one in found.trends
    ]
    caption = "Trend of the refusal rate along the checkpoints: the mean slope within instructions, in points"
    columns = frozenset({"Change from first to last", "95 % interval", "p", "Holm p"})
    return TableSpec("lineage-trends", caption, pandas.DataFrame(data), pandas.DataFrame(readable), columns)


def _reach_table(view: ReportView, found: Lineage) -> TableSpec | None:
    import pandas

    if not found.reaches:
        return None
    data = [{**one.model_dump(exclude={"ci95"}), "ci95 low": one.ci95[0], "ci95 high": one.ci95[1]} for one in found.reaches]
    readable = [
        {
            "Direction from": one.source,
            "Edit": _edit_name(view, (one.action, one.dose, one.instructions)),
            "Others": str(one.targets),
            "Change in the others": number_format.points(one.change),
            "95 % interval": number_format.interval(one.ci95),
            "Change in itself": number_format.points(one.own),
        }
        for one in found.reaches
    ]
    caption = "Mean change of the refusal rate by the checkpoint that the direction comes from, in points"
    columns = frozenset({"Others", "Change in the others", "95 % interval", "Change in itself"})
    # Many rows; the figure shows the same numbers.
    folded = len(readable) > _MOST_ROWS
    return TableSpec(
        "lineage-directions", caption, pandas.DataFrame(data), pandas.DataFrame(readable), columns, on_page=not folded
    )
