"""The tables that a terminal shows, at any width: the results of a run, and two runs side by side.

Everything is in the text, so it is there without colour too: in a pipe, or if NO_COLOR is set. A star marks a significant change.
"""

from collections.abc import Sequence
from itertools import groupby
from statistics import median
from typing import TYPE_CHECKING

from demur.analysis.cell import Claim, JudgedCell
from demur.analysis.summary import Summary
from demur.core import number_format
from demur.core.fitted_table import USUAL, Line, Pieces, fitted_table
from demur.core.statistics import LEVEL
from demur.report.cell_labels import BASELINE
from demur.report.cell_view import Entry, entries, judges
from demur.report.large_runs.terminal_folded import MOST_LINES, folded_table
from demur.report.outcomes.hypothesis_rows import MOST_ROWS, ORDER, hypotheses_of
from demur.report.sections.control_pools import MANY, Spread, pool_label, pooled

if TYPE_CHECKING:
    from rich.table import Table

    from demur.analysis.run_comparison import RunComparison, SharedCell

CROSSES = "#"
"""The mark of a direction that was read under another prompt format than the one that it is used under."""

MOST_DIFFERENCES = 15
"""Of a long list of settings or cells that differ between two runs, this many are shown."""

WORDS = ("target", "set", "edit", "direction")

_MOST_HYPOTHESES = 8
"""The terminal shows this many hypotheses."""

_VERDICT_STYLES = {"supported": "bold", "contradicted": "bold", "not shown": "", "not tested": "dim"}


def terminal_hypotheses(summary: Summary, width: int = USUAL) -> "list[Table | str]":
    """The verdicts on the hypotheses of a run, one line each.

    Args:
        summary: the run's summary.
        width: the columns of the terminal.

    Returns:
        A table of those that were tested, and a sentence on those that are left out; nothing for a run of an earlier version.
    """
    every = sorted(hypotheses_of(summary), key=lambda claim: ORDER.index(claim.verdict))
    tested = [claim for claim in every if claim.verdict != "not tested"]
    if not tested:
        return []
    lines = [_hypothesis_line(claim) for claim in tested[:_MOST_HYPOTHESES]]
    caption = "Claims of the post. Induces: more refusals of harmless instructions; suppresses: fewer of harmful ones. Change in "
    caption += "points; p with Holm's correction."
    heads, groups = (("verdict", "claim"), ("change", "p")), [[line] for line in lines]
    table = fitted_table(*heads, groups, width=width, sections=False, caption=caption)
    rest = [claim for claim in every if claim not in tested[:_MOST_HYPOTHESES]]
    if not rest:
        return [table]
    counts = {verdict: sum(claim.verdict == verdict for claim in rest) for verdict in ORDER}
    more = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    where = "on the page" if len(every) <= MOST_ROWS else "in tables/claims.csv"
    return [table, f"{len(rest)} more {where}: {more}."]


def _hypothesis_line(claim: Claim) -> Line:
    change: Pieces = ("",)
    if claim.effect is not None and claim.ci95 is not None and claim.n is not None:
        digits = number_format.decimals(claim.n)
        low, high = (_change(bound, claim.n) for bound in claim.ci95)
        change = (number_format.points(claim.effect, digits, minus="-"), f"[{low}, {high}]")
    return Line((claim.verdict, claim.short), (change, (number_format.p_value(claim.p),)), _VERDICT_STYLES[claim.verdict])


def terminal_table(summary: Summary, width: int = USUAL) -> "Table":
    """The first judge's results: a group for each target.

    Args:
        summary: the run's summary.
        width: the columns of the terminal.

    Returns:
        The table. Controls of one kind and edit are one line: the range of two rates, the median and the range of more. A star
        marks a significant change. A table of more than `MOST_LINES` lines is folded further; see `terminal_folded`.
    """
    judge = judges(summary)[0]
    found = entries(summary, judge)
    doses = list(dict.fromkeys((entry.done, entry.dose) for entry in found if entry.dose))
    added = "; {}: {}".format(*doses[0]) if len(doses) == 1 else ""
    caption = f"Judge {judge}; {_counts(found)}{added}. 95 % Wilson intervals; change in points"
    caption += f", * where p < {LEVEL} (exact McNemar test, Holm)." if any(map(_significant, found)) else "."
    if any(entry.cell.crosses_formats for entry in found):
        caption += f" {CROSSES} The direction was read under another prompt format."
    pools = pooled(found)
    if len(pools) > MOST_LINES:
        return folded_table(found, judge, width)
    several = [pool for pool in pools if len(pool) > 1]
    if several:
        caption += " Controls are one line, from the lowest to the highest rate"
        if any(len(pool) >= MANY for pool in several):
            caption += f" (in brackets, after their median, from {MANY} on)"
        caption += ", * for any of them." if any(_significant(one) for pool in several for one in pool) else "."
    groups = [list(map(_result_line, group)) for _, group in groupby(pools, key=lambda pool: pool[0].target)]
    return fitted_table(WORDS, ("refused", "change"), groups, width=width, caption=caption)


def _result_line(pool: Sequence[Entry]) -> Line:
    entry = pool[0]
    if len(pool) == 1:
        refused: Pieces = number_format.estimate_pieces(entry.rate, entry.interval, entry.n)
        significant = _significant(entry)
        change = _change(entry.change, entry.n)
        colour = _colour(entry.change) if significant and not entry.control else ""
        return Line(_names(entry), (refused, (_starred(change, significant),)), _style(entry), ("", colour))
    named = (entry.target, entry.instructions, entry.intervention, pool_label(pool, lambda one: one.variant))
    if len(pool) >= MANY:
        changes = [one.change for one in pool if one.change is not None]
        middle = _change(median(changes), entry.n) if changes else ""
        return Line(named, (Spread.of(pool).pieces, (_starred(middle, any(map(_significant, pool))),)), "dim")
    low, high = (pick(pool, key=lambda one: one.rate) for pick in (min, max))
    changed = [one for one in (low, high) if one.change is not None]
    mark = any(map(_significant, pool))
    refused = _span(*(number_format.percent(one.rate, one.n) for one in (low, high)))
    reach = _span(*(_change(one.change, one.n) for one in changed)) if len(changed) == 2 else ("",)
    return Line(named, (refused, (_starred(reach[0], mark), *reach[1:])), "dim")


def _span(first: str, last: str) -> Pieces:
    """A range; the per cent sign is written once."""
    if first == last:
        return (first,)
    return (f"{first.removesuffix(' %')} to", last)


def _significant(entry: Entry) -> bool:
    return entry.p_holm is not None and entry.p_holm < LEVEL


def terminal_comparison(
    comparisons: "Sequence[RunComparison]", names: Sequence[str], judge: str | None = None, width: int = USUAL
) -> "list[Table | str]":
    """For each run after the first: settings that differ, the shared cells of one judge, and a summary of the tests.

    Args:
        comparisons: every other run beside the first.
        names: how the runs are called, the first one included.
        judge: whose verdicts are compared; None for the first judge that all of them share.
        width: the columns of the terminal.

    Returns:
        Tables and sentences in their order.
    """
    letters = _letters(len(names))
    shown: list[Table | str] = []
    for letter, name, matched in zip(letters, names, ((), *(each.matched for each in comparisons)), strict=True):
        also = ", ".join(f"{first} is called {other} here" for first, other in matched)
        shown.append(f"{letter}  {name}{f', {also}' if also else ''}")
    common = [name for name in comparisons[0].judges() if all(name in each.judges() for each in comparisons)]
    chosen = judge or next(iter(common), None)
    for letter, comparison in zip(letters[1:], comparisons, strict=True):
        shown += _one_comparison(comparison, letter, chosen, width, several=len(comparisons) > 1)
    return shown


def _letters(count: int) -> list[str]:
    """A, B, C, ..., Z, A2, B2, ..."""
    return [f"{chr(ord('A') + number % 26)}{number // 26 + 1 if number >= 26 else ''}" for number in range(count)]


def _one_comparison(
    comparison: "RunComparison", letter: str, judge: str | None, width: int, *, several: bool
) -> "list[Table | str]":
    """The part of one run after the first, which is A."""
    cells, of = _shown_cells(comparison.of(judge))
    judge = cells[0].judge
    rows = {cell.cell.key: cell for cell in cells}
    found = entries(comparison.context.model_copy(update={"cells": tuple(_as_cell(cell) for cell in cells)}))
    shown: list[Table | str] = []
    between = f" between A and {letter}" if several else ""
    if comparison.settings:
        lines = [Line((each.setting, each.first, each.second), ()) for each in comparison.settings]
        title = f"Settings that differ{between}"
        if len(lines) > MOST_LINES:
            title += f" (the first {MOST_DIFFERENCES} of {len(lines)})"
            lines = lines[:MOST_DIFFERENCES]
        # A group of its own for each, because the name of a group is shown once.
        alone = [[line] for line in lines]
        shown += ["", fitted_table(("setting", "A", letter), (), alone, width=width, title=title, sections=False)]
    elif several:
        shown += ["", f"A and {letter} differ in no setting."]
    else:
        shown.append("The runs differ in no setting.")
    many = len({cell.paired.n for cell in cells}) > 1
    caption = f"Judge {judge}; {_counts(found)}. Change in points; p of exact McNemar tests over the instructions"
    caption += f" that both have, after Holm's correction{' over all runs' if several else ''}; * where p < {LEVEL}."
    numbers = ("A", letter, *(("n",) if many else ()), "change", "p")
    groups = [
        [_compared_line(entry, rows[entry.key], many) for entry in group]
        for _, group in groupby(found, key=lambda one: one.target)
    ]
    title = f"Refusals in {of}{f' of A and {letter}' if several else ''}"
    table = fitted_table(WORDS, numbers, groups, width=width, title=title, caption=caption)
    return [*shown, "", table, *_sentences(comparison, letter, several=several)]


def _shown_cells(cells: "Sequence[SharedCell]") -> "tuple[Sequence[SharedCell], str]":
    """The cells that a table shows, and what it calls them: all, or of many those with the smallest p values."""
    if len(cells) <= MOST_LINES:
        return cells, "the shared cells"
    chosen = sorted(cells, key=lambda cell: (cell.p_holm, cell.paired.p_value))[:MOST_DIFFERENCES]
    return chosen, f"{len(chosen)} of {len(cells):,} shared cells, those with the smallest p values,"


def _compared_line(entry: Entry, cell: "SharedCell", many: bool) -> Line:
    rates = [(number_format.percent(rate, cell.paired.n),) for rate in (cell.first, cell.second)]
    count = [(str(cell.paired.n),)] if many else []
    change = _starred(_change(cell.paired.difference, cell.paired.n), cell.differs)
    colour = _colour(cell.paired.difference) if cell.differs else ""
    tested = tuple(number_format.p_value(cell.p_holm).split())
    style = "bold" if cell.differs else "dim" if entry.control else ""
    numbers = (*rates, *count, (change,), tested)
    return Line(_names(entry), numbers, style, ("",) * (len(numbers) - 2) + (colour, ""))


def _sentences(comparison: "RunComparison", letter: str, *, several: bool) -> list[str]:
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
    for name, other, count in (("A", letter, comparison.only_first), (letter, "A", comparison.only_second)):
        if count:
            where = f"in {name} and not in {other}" if several else f"in {name} only"
            said.append(f"{count} cell{'s are' if count > 1 else ' is'} {where}.")
    return said


def _names(entry: Entry) -> tuple[str, str, str, str]:
    """Target, set, edit and direction."""
    named = f"{entry.variant} {CROSSES}" if entry.cell.crosses_formats else entry.variant
    return entry.target, entry.instructions, entry.intervention, named if entry.edited else BASELINE


def _style(entry: Entry) -> str:
    return "dim" if entry.control else "bold" if not entry.edited else ""


def _change(change: float | None, n: int) -> str:
    """A change in points."""
    return number_format.points(change, number_format.decimals(n), minus="-")


def _starred(text: str, significant: bool) -> str:
    return f"* {text}" if significant and text else text


def _colour(change: float | None) -> str:
    """Blue for more refusals and yellow for fewer."""
    return "" if not change else "yellow" if change < 0 else "blue"


def _counts(found: Sequence[Entry]) -> str:
    sets = dict.fromkeys(entry.instructions for entry in found)
    return "; ".join(f"{name} n = {', '.join(map(str, sorted({e.n for e in found if e.instructions == name})))}" for name in sets)


def _as_cell(cell: "SharedCell") -> JudgedCell:
    """A shared cell as a cell of a summary, so that it gets the usual labels and order. Its rate is that of the first run."""
    count = round(cell.first * cell.paired.n)
    facts = cell.cell.model_dump(mode="json")
    return JudgedCell(**facts, judge=cell.judge, n=cell.paired.n, refusals=count, rate=cell.first, ci95=(0.0, 1.0))
