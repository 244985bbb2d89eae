"""Refusal rates of every checkpoint without an edit."""

from collections.abc import Sequence
from typing import ClassVar

from demur.report.cell_view import instruction_sets
from demur.report.figure_contents import Bars
from demur.report.figure_spec import FigureSpec, Sheet, TableSpec
from demur.report.sections.rate_bars import (
    axis_titles,
    bar_block,
    diamonds_in_words,
    rate_numbers,
    rates_in_words,
    readable_rate_numbers,
    trials_in_words,
)
from demur.report.sections.section import ReportView


class BaselineRates:
    """The figure `rates`."""

    part: ClassVar[str] = "rates"

    def figures(self, view: ReportView) -> Sequence[FigureSpec]:
        """A bar for each checkpoint and prompt format."""
        found = [entry for entry in view.entries if not entry.edited]
        if not found:
            return []
        sets = instruction_sets(found)
        block = bar_block("", found, sets, lambda entry: entry.target, lambda entry: view.palette.get(entry.cell.target))
        title = "Refusal rates without intervention"
        caption = f"How often each checkpoint refuses; {trials_in_words(found)}, 95 % Wilson intervals, judge {view.judge}."
        caption += diamonds_in_words(found)
        data = rate_numbers(found)
        content = Bars(axis_titles(sets), (block,))
        return [
            FigureSpec.of(
                Sheet("rates", title, caption, rates_in_words(title, found), data, content, readable_rate_numbers(found))
            )
        ]

    def tables(self, view: ReportView) -> Sequence[TableSpec]:  # noqa: ARG002
        """No tables other than the numbers of the figure."""
        return []
