"""Refusal rates under every edit: one figure for each figure name in the summary's words for edits."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from demur.report.cell_view import Entry, instruction_sets, targets_of
from demur.report.figure_contents import BarBlock, Bars
from demur.report.figure_spec import FigureSpec, Sheet, TableSpec
from demur.report.sections.rate_bars import (
    axis_titles,
    bands_in_words,
    bar_block,
    diamonds_in_words,
    in_order_of_rows,
    others_in_words,
    rate_numbers,
    rates_in_words,
    readable_rate_numbers,
    source_colour,
    trials_in_words,
)
from demur.report.sections.section import ReportView

BARS_A_SHEET = 44
"""The most bars in one file. A figure with more bars is split into several files, each with whole targets."""


class EditedRates:
    """The figures that the words of the edits name, such as `added` and `ablated`."""

    part: ClassVar[str] = "rates"

    def figures(self, view: ReportView) -> Sequence[FigureSpec]:
        """A figure for each name in the summary's words for edits, in their order."""
        titles: dict[str, str] = {}
        for words in view.summary.edits.values():
            titles.setdefault(words.figure, words.title)
        made = []
        for name, title in titles.items():
            found = [entry for entry in view.entries if entry.words is not None and entry.words.figure == name]
            if found:
                made.append(_figure(view, name, title, found))
        return made

    def tables(self, view: ReportView) -> Sequence[TableSpec]:  # noqa: ARG002
        """No tables other than the numbers of the figures."""
        return []


def _figure(view: ReportView, name: str, title: str, found: Sequence[Entry]) -> FigureSpec:
    """A figure with a block of bars for each target (its baseline, then every direction) and a panel for each instruction set."""
    sets = instruction_sets(found)
    shown = [entry for entry in view.entries if not entry.edited and entry.instructions in sets] + list(found)
    by_target = {target: [entry for entry in shown if entry.target == target] for target in targets_of(found)}
    colour = source_colour(view.palette)
    blocks = {
        target: bar_block(f"on {target}", chosen, sets, lambda entry: entry.variant, colour)
        for target, chosen in by_target.items()
    }
    doses = list(dict.fromkeys(entry.dose for entry in found if entry.dose))
    strength = f"; coefficient {doses[0]}" if len(doses) == 1 else ""
    sheets = []
    pages = _pages(blocks)
    for index, page in enumerate(pages):
        there = [entry for target in page for entry in _in_order_of_rows(by_target[target])]
        shown_blocks = [blocks[target] for target in page]
        part = f" ({index + 1} of {len(pages)})" if len(pages) > 1 else ""
        caption = (
            f"One block for each target, one bar for each direction, named by its source{strength}; {trials_in_words(there)}, "
            f"95 % Wilson intervals, judge {view.judge}. Grey and hatched: controls."
            f"{bands_in_words(shown_blocks)}{others_in_words(there)}{diamonds_in_words(there)}"
        )
        data = rate_numbers(there)
        content = Bars(axis_titles(sets), tuple(shown_blocks))
        said = rates_in_words(title, there)
        suffix = f"-{index + 1}" if index else ""
        sheets.append(Sheet(name + suffix, title + part, caption, said, data, content, readable_rate_numbers(there)))
    return FigureSpec(name, title, sheets[0].caption, Bars(axis_titles(sets), tuple(blocks.values())), tuple(sheets))


def _in_order_of_rows(found: Sequence[Entry]) -> list[Entry]:
    """Entries in the order of the bars: row by row, and in each row in the order of the entries."""
    rows: dict[str, list[Entry]] = {}
    for entry in in_order_of_rows(found):
        rows.setdefault(entry.variant, []).append(entry)
    return [entry for row in rows.values() for entry in row]


def _pages(blocks: Mapping[str, BarBlock]) -> list[list[str]]:
    """The targets of each file."""
    pages: list[list[str]] = []
    count = 0
    for target, block in blocks.items():
        if not pages or count + len(block.rows) > BARS_A_SHEET:
            pages.append([])
            count = 0
        pages[-1].append(target)
        count += len(block.rows)
    return pages
