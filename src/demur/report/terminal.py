"""The tables that a terminal shows, within 80 columns: the results of a run, and two runs side by side.

In the table of results, only colour shows which changes are significant. Everything else is also in the text, so it is there
without colour too: in a pipe, or if NO_COLOR is set.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from demur.analysis.cell import JudgedCell
from demur.analysis.summary import Summary
from demur.core import number_format
from demur.core.statistics import LEVEL
from demur.report.cell_labels import BASELINE
from demur.report.cell_view import Entry, entries, judges

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from demur.analysis.run_comparison import RunComparison, SharedCell

WIDTH = 80


def terminal_table(summary: Summary) -> "Table":
    """The first judge's results: a group for each target. Controls are dimmed, significant changes coloured."""
    from rich.text import Text

    judge = judges(summary)[0]
    found = entries(summary, judge)
    doses = list(dict.fromkeys((entry.done, entry.dose) for entry in found if entry.dose))
    added = "; {}: {}".format(*doses[0]) if len(doses) == 1 else ""
    table = _table(f"Judge {judge}; {_counts(found)}{added}. 95 % Wilson intervals; change in points.")
    table.add_column("target", width=14, overflow="fold")
    table.add_column("set", width=8, overflow="ellipsis", no_wrap=True)
    table.add_column("edit", width=6, overflow="fold")
    table.add_column("direction", ratio=1, overflow="fold")
    table.add_column(
        "refused", justify="right", width=21 if any(number_format.decimals(e.n) for e in found) else 18, no_wrap=True
    )
    table.add_column("change", justify="right", width=6, no_wrap=True)
    for _, group in groupby(found, key=lambda entry: entry.target):
        for index, entry in enumerate(group):
            refused = number_format.estimate(entry.rate, entry.interval, entry.n)
            holds = entry.p_holm is not None and entry.p_holm < LEVEL
            change = _change(entry.change, entry.n, coloured=holds and not entry.control)
            table.add_row(*_names(entry, first=index == 0), Text(refused), change, style=_style(entry))
        table.add_section()
    return table


def terminal_comparison(comparison: "RunComparison", names: tuple[str, str], judge: str | None = None) -> "list[Table | str]":
    """Settings that differ, the shared cells of one judge, and a summary of the tests."""
    from rich.text import Text

    cells = comparison.of(judge)
    judge = cells[0].judge
    rows = {cell.cell.key: cell for cell in cells}
    found = entries(comparison.context.model_copy(update={"cells": tuple(_as_cell(cell) for cell in cells)}))
    shown: list[Table | str] = [f"A  {names[0]}", f"B  {names[1]}"]
    if comparison.settings:
        settings = _table()
        settings.title, settings.title_justify = "Settings that differ", "left"
        for name, width in (("setting", 32), ("A", 22), ("B", 22)):
            settings.add_column(name, width=width, overflow="fold")
        for each in comparison.settings:
            settings.add_row(*(Text(text) for text in (each.setting, each.first, each.second)))
        shown += ["", settings]
    else:
        shown.append("The runs differ in no setting.")
    many = len({cell.paired.n for cell in cells}) > 1
    caption = f"Judge {judge}; {_counts(found)}. Change in points; p of exact McNemar tests over the instructions"
    table = _table(f"{caption} that both have, after Holm's correction; bold where p < {LEVEL}.")
    table.title, table.title_justify = "Refusals in the shared cells", "left"
    table.add_column("target", width=12, overflow="fold")
    table.add_column("set", width=8, overflow="ellipsis", no_wrap=True)
    table.add_column("edit", width=6, overflow="fold")
    table.add_column("direction", ratio=1, overflow="fold")
    for name, width in (("A", 7), ("B", 7), *((("n", 4),) if many else ()), ("change", 6), ("p", 7)):
        table.add_column(name, justify="right", width=width, no_wrap=True)
    for _, group in groupby(found, key=lambda entry: entry.target):
        for index, entry in enumerate(group):
            cell = rows[entry.key]
            rates = [number_format.percent(rate, cell.paired.n) for rate in (cell.first, cell.second)]
            count = [str(cell.paired.n)] if many else []
            change = _change(cell.paired.difference, cell.paired.n, coloured=cell.differs)
            tested = Text(number_format.p_value(cell.p_holm))
            style = "bold" if cell.differs else "dim" if entry.control else ""
            table.add_row(*_names(entry, first=index == 0), *map(Text, (*rates, *count)), change, tested, style=style)
        table.add_section()
    return [*shown, "", table, *_sentences(comparison)]


def _sentences(comparison: "RunComparison") -> list[str]:
    same = comparison.agreement
    said = [
        f"{same.tokens} of {same.n} completions have the same tokens up to the end of the shorter one, and "
        f"{same.first_token} have the same first token."
    ]
    for judge in comparison.judges():
        cells = comparison.of(judge)
        differing = sum(cell.differs for cell in cells)
        found = f"a difference in refusals is shown in {differing}" if differing else "no difference in refusals is shown in any"
        said.append(f"Judge {judge}: {found} of {len(cells)} shared cells.")
    for name, count in (("A", comparison.only_first), ("B", comparison.only_second)):
        if count:
            said.append(f"{count} cell{'s are' if count > 1 else ' is'} in {name} only.")
    return said


def _table(caption: str | None = None) -> "Table":
    from rich import box
    from rich.table import Table

    return Table(box=box.HORIZONTALS, padding=(0, 1, 0, 0), show_edge=False, width=WIDTH, caption=caption, caption_justify="left")


def _names(entry: Entry, *, first: bool) -> "list[Text]":
    """Target, set, edit and direction. They are `Text`, because rich would read a `str` with brackets as markup."""
    from rich.text import Text

    baseline = not entry.edited
    cells = (entry.target if first else "", entry.instructions, entry.intervention, BASELINE if baseline else entry.variant)
    return [Text(cell) for cell in cells]


def _style(entry: Entry) -> str:
    return "dim" if entry.control else "bold" if not entry.edited else ""


def _change(change: float | None, n: int, *, coloured: bool) -> "Text":
    """A change in points; in colour, blue for more refusals and yellow for fewer."""
    from rich.text import Text

    text = number_format.points(change, number_format.decimals(n), minus="-")
    return Text(text, style=("yellow" if text.startswith("-") else "blue") if coloured else "")


def _counts(found: Sequence[Entry]) -> str:
    sets = dict.fromkeys(entry.instructions for entry in found)
    return "; ".join(f"{name} n = {', '.join(map(str, sorted({e.n for e in found if e.instructions == name})))}" for name in sets)


def _as_cell(cell: "SharedCell") -> JudgedCell:
    """A shared cell as a cell of a summary, so that it gets the usual labels and order. Its rate is that of the first run."""
    count = round(cell.first * cell.paired.n)
    facts = cell.cell.model_dump(mode="json")
    return JudgedCell(**facts, judge=cell.judge, n=cell.paired.n, refusals=count, rate=cell.first, ci95=(0.0, 1.0))
