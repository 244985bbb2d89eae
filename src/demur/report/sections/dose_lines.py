"""Refusal rates by dose: a line for each direction, wherever an edit was tried with several coefficients."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from demur.core import number_format
from demur.report.cell_view import Entry, instruction_sets, targets_of
from demur.report.figure_contents import Band, LayerLines, Line, LinePanel
from demur.report.figure_spec import FigureSpec, Sheet, TableSpec
from demur.report.large_runs.evenly_spaced import evenly_spaced, spacing_note
from demur.report.sections.control_pools import kind_of
from demur.report.sections.doses.coherence_lines import broken_mark, loss_panel
from demur.report.sections.doses.probability_lines import probability_panel
from demur.report.sections.page_address import cell_address
from demur.report.sections.rate_bars import rate_numbers, rates_in_words, readable_rate_numbers, trials_in_words
from demur.report.sections.section import ReportView
from demur.report.style import GREY, NEUTRAL

PANELS_A_SHEET = 5
"""The most panels in one file. A figure with more panels is split into several files."""


@dataclass(frozen=True)
class _Doses:
    """The edited cells of one kind of edit and one unit, their doses, and the unedited cells beside them."""

    edited: tuple[Entry, ...]
    baselines: tuple[Entry, ...]
    places: tuple[float, ...]


class DoseLines:
    """The figures `doses-KIND-UNIT`."""

    part: ClassVar[str] = "rates"

    def figures(self, view: ReportView) -> Sequence[FigureSpec]:
        """A figure for each kind of edit and unit for which a direction was tried with several coefficients."""
        groups: dict[tuple[str, str], list[Entry]] = {}
        for entry in view.entries:
            if entry.edited and entry.cell.coefficient is not None:
                groups.setdefault((entry.kind, entry.cell.unit or ""), []).append(entry)
        made = []
        for (kind, unit), found in groups.items():
            if _several_doses(found):
                name = re.sub(r"[^\w.-]+", "-", "-".join(filter(None, ("doses", kind, unit))))
                made.append(_figure(view, name, found))
        return made

    def tables(self, view: ReportView) -> Sequence[TableSpec]:  # noqa: ARG002
        """No tables other than the numbers of the figures."""
        return []


def _several_doses(found: Sequence[Entry]) -> bool:
    doses: dict[tuple[str, str, str], set[float | None]] = {}
    for entry in found:
        if not entry.control:
            doses.setdefault((entry.target, entry.instructions, entry.direction), set()).add(entry.cell.coefficient)
    return any(len(coefficients) > 1 for coefficients in doses.values())


def _figure(view: ReportView, name: str, every: Sequence[Entry]) -> FigureSpec:
    targets, found = targets_of(every), _selected(every)
    places = [(e.target, e.instructions) for e in found]
    baselines = tuple(e for e in view.entries if not e.edited and (e.target, e.instructions) in places)
    tried = {e.cell.coefficient for e in found if e.cell.coefficient is not None}
    doses = _Doses(tuple(found), baselines, tuple(sorted(tried | ({0.0} if baselines else set()))))
    wanted = [(t, s) for t in targets_of(found) for s in instruction_sets(found) if (t, s) in places]
    words = found[0].words
    unit = found[0].dose.partition(f" {number_format.TIMES} ")[2]
    axis = "coefficient" + (f" ({number_format.TIMES} {unit})" if unit else "")
    title = f"Refusal rates by coefficient, each direction {words.done if words else ''}"
    sheets = []
    chunks = [wanted[start : start + PANELS_A_SHEET] for start in range(0, len(wanted), PANELS_A_SHEET)]
    for index, chunk in enumerate(chunks):
        there = [e for e in (*baselines, *found) if (e.target, e.instructions) in chunk]
        part = f" ({index + 1} of {len(chunks)})" if len(chunks) > 1 else ""
        caption = f"One line for each direction, named by its source; {trials_in_words(there)}; judge {view.judge}. "
        caption += f"Shaded: 95 % Wilson intervals.{spacing_note(len(targets), 'targets')}"
        caption += " At 0, on the dotted line: no edit." if baselines else ""
        caption += " Thin grey lines: controls." if any(e.control for e in there) else ""
        if any(e.likelihood is not None for e in there if e.edited):
            caption += " Below: the exact probability of a refusal at temperature 1, where it was measured."
        if any(one.loss_change is not None for one in view.summary.doses.coherence):
            caption += " At the bottom: the loss of the text, in nats a token more than without an edit."
        data = rate_numbers(there)
        content = _lines(view, doses, chunk, axis)
        said = rates_in_words(title, there)
        suffix = f"-{index + 1}" if index else ""
        sheets.append(Sheet(name + suffix, title + part, caption, said, data, content, readable_rate_numbers(there)))
    return FigureSpec(name, title, sheets[0].caption, _lines(view, doses, wanted, axis), tuple(sheets))


def _selected(found: Sequence[Entry]) -> list[Entry]:
    """The entries of some targets and sources, if there are many: sixty lines in each of sixty panels could not be read."""
    targets = evenly_spaced(targets_of(found))
    sources = evenly_spaced(list(dict.fromkeys(entry.source for entry in found if not entry.control)))
    return [e for e in found if e.target in targets and (e.control or e.source in sources or e.source == e.cell.target)]


def _lines(view: ReportView, doses: _Doses, wanted: Sequence[tuple[str, str]], axis: str) -> LayerLines:
    looks = _looks(view, doses.edited)
    panels = tuple(panel for target, instructions in wanted for panel in _panels(view, doses, target, instructions, looks))
    return LayerLines(
        panels,
        marked=(0.0,) if doses.baselines else (),
        inches=0.9 + 1.5 * len(panels),
        pixels=90 + 190 * len(panels),
        horizontal=doses.places,
        axis=axis,
    )


def _looks(view: ReportView, edited: Sequence[Entry]) -> dict[str, tuple[str, int]]:
    """Colour and dash of each direction: the colour shows the source, the dash tells directions of one source apart."""
    looks: dict[str, tuple[str, int]] = {}
    for entry in sorted(edited, key=lambda e: e.control):
        colour = GREY if entry.control else view.palette.get(entry.source or "", NEUTRAL)
        alike = sum(other == colour for other, _ in looks.values())
        looks.setdefault(entry.direction, (colour, 0 if entry.control else alike))
    return looks


def _panels(
    view: ReportView, doses: _Doses, target: str, instructions: str, looks: dict[str, tuple[str, int]]
) -> list[LinePanel]:
    """The panel of rates, and below it those of probabilities and losses.

    Each has every direction, so that the legend of any of them names all.
    """
    texts = {one.key: one for one in view.summary.doses.coherence}
    here = [e for e in doses.edited if (e.target, e.instructions) == (target, instructions)]
    baseline = [e for e in doses.baselines if (e.target, e.instructions) == (target, instructions)]
    controls = {e.direction: kind_of(e.cell) for e in doses.edited if e.control}
    lines, bands, marks = [], [], []
    for direction, (colour, dash) in looks.items():
        by_dose = {e.cell.coefficient: e for e in here if e.direction == direction}
        # Where the direction was not tried there is no line, so the point at 0 is left out, too.
        with_zero = by_dose | ({0.0: baseline[0]} if baseline and by_dose else {})
        cells = [with_zero.get(place) for place in doses.places]
        kind = controls.get(direction)
        name = direction if kind is None else f"{kind} directions (controls)"
        values = tuple(None if cell is None else cell.rate for cell in cells)
        notes, selects = tuple(map(_note, cells)), tuple("" if cell is None else cell_address(cell) for cell in cells)
        lines.append((Line(name, values, colour, dash, notes, thin=kind is not None, selects=selects), cells))
        if kind is None:
            marks += broken_mark(lines[-1][0], cells, texts)
            bands.append(Band(direction, tuple(None if cell is None else cell.interval for cell in cells), colour))
    heading = f"{target}, {instructions} instructions"
    drawn = (*(line for line, _ in lines), *marks)
    rates = LinePanel("refused", drawn, tuple(bands), scale="share", heading=heading, top=1.0)
    return [rates, *probability_panel(lines), *loss_panel(lines, texts, doses.places)]


def _note(cell: Entry | None) -> str:
    if cell is None:
        return ""
    which = f"; {cell.direction}" if cell.control else ""
    return f"{number_format.interval(cell.interval)}, {cell.refusals} of {cell.n}{which}"
