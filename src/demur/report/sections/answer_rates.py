"""The rates that the answers of a run state, in one figure: it stands beside them at the top of the page."""

from collections.abc import Sequence
from typing import ClassVar

from demur.report.cell_view import Entry, instruction_sets
from demur.report.figure_contents import BarBlock, Bars
from demur.report.figure_spec import FigureSpec, Sheet, TableSpec
from demur.report.sections.control_pools import kind_of
from demur.report.sections.rate_bars import bar_block, rate_numbers, rates_in_words, readable_rate_numbers, trials_in_words
from demur.report.sections.section import ReportView

_TITLE = "The rates of the answer"


class AnswerRates:
    """The figure `answer`."""

    part: ClassVar[str] = "answer"

    def figures(self, view: ReportView) -> Sequence[FigureSpec]:
        """A bar for each rate that the answers state, and one for the null directions of each edit; none without answers."""
        by_key = {entry.key: entry for entry in view.entries}
        labels: dict[str, str] = {}
        for answer in view.summary.answers:
            stated = [by_key[key] for key in answer.cells if key in by_key]
            labels |= {entry.key: _label(entry) for entry in stated if not entry.control}
            labels |= _strongest_nulls(stated)
        shown = [by_key[key] for key in labels]
        if not shown:
            return []
        blocks = tuple(
            _block(name, [e for e in shown if e.instructions == name], labels, view) for name in instruction_sets(shown)
        )
        nulls = " Grey and hatched: the null direction that comes closest to the edit." if _any_null(shown) else ""
        caption = f"How often each checkpoint refuses, without and with an edit; {trials_in_words(shown)}, 95 % Wilson intervals."
        data = rate_numbers(shown)
        sheet = Sheet(
            "answer",
            _TITLE,
            f"{caption}{nulls}",
            rates_in_words(_TITLE, shown),
            data,
            Bars(("refused (%)",), blocks),
            readable_rate_numbers(shown),
        )
        return [FigureSpec.of(sheet)]

    def tables(self, view: ReportView) -> Sequence[TableSpec]:  # noqa: ARG002
        """No tables other than the numbers of the figure."""
        return []


def _block(instructions: str, shown: Sequence[Entry], labels: dict[str, str], view: ReportView) -> BarBlock:
    def colour(entry: Entry) -> str | None:
        return view.palette.get(entry.cell.target)

    return bar_block(f"{instructions} instructions", shown, [instructions], lambda entry: labels[entry.key], colour)


def _any_null(shown: Sequence[Entry]) -> bool:
    return any(entry.control for entry in shown)


def _strongest_nulls(stated: Sequence[Entry]) -> dict[str, str]:
    """Of each kind of null direction, the cell that comes closest to the edit, with its label."""
    edit = next((entry for entry in stated if entry.edited and not entry.control), None)
    if edit is None:
        return {}
    # Runs of earlier versions do not say which change is expected.
    sign = edit.cell.expected or (1 if (edit.change or 0) > 0 else -1)
    nulls: dict[str, list[Entry]] = {}
    for entry in stated:
        if entry.control:
            nulls.setdefault(kind_of(entry.cell), []).append(entry)
    found = {}
    for kind, alike in nulls.items():
        strongest = max(alike, key=lambda entry: sign * entry.rate)
        found[strongest.key] = f"{strongest.target}, {kind} direction {strongest.done}"
    return found


def _label(entry: Entry) -> str:
    if entry.words is None:
        return f"{entry.target}, no edit"
    whose = "its own" if entry.source == entry.cell.target else f"{entry.source}'s"
    what = f"{whose} {entry.words.noun} " if entry.words.noun and entry.source else ""
    # The rest of the variant is the coefficient, where an edit has several.
    return f"{entry.target}, {what}{entry.done}{entry.variant.removeprefix(entry.direction)}"
