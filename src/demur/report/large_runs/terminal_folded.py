"""The terminal's table of a run with many cells: one line for all cells of one edit, whose directions come from the same place.

A matrix of 60 checkpoints has thousands of cells. One line each would fill a hundred screens.
"""

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

from demur.analysis.cell_phrases import is_own
from demur.core import number_format
from demur.core.fitted_table import Line, fitted_table
from demur.core.statistics import LEVEL
from demur.report.cell_view import Entry
from demur.report.sections.control_pools import Spread, kind_of

if TYPE_CHECKING:
    from rich.table import Table

MOST_LINES = 60
"""A table with more lines is folded."""


def folded_table(found: Sequence[Entry], judge: str, width: int) -> "Table":
    """The results of one judge, with the cells of one edit and one origin of its directions in one line.

    Args:
        found: the entries of the judge.
        judge: its name.
        width: the columns of the terminal.

    Returns:
        The table. Each line has the number of its cells, their median rate with the lowest and the highest one, the median change
        and in how many of them the change is significant.
    """
    pools: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in found:
        edit = " ".join(filter(None, (entry.intervention, entry.dose)))
        pools.setdefault((entry.instructions, edit, _origin(entry)), []).append(entry)
    sets = list(dict.fromkeys(key[0] for key in pools))
    groups = [[_line(key, pool) for key, pool in pools.items() if key[0] == name] for name in sets]
    caption = (
        f"Judge {judge}. {len(found):,} cells are folded: each line has the median rate of its cells and in brackets the lowest "
        f"and the highest one, the median change in points, and in how many cells the change is significant (exact McNemar "
        f"test, Holm, p < {LEVEL}). The page and tables/results.csv have every cell."
    )
    return fitted_table(
        ("set", "edit", "direction"), ("cells", "refused", "change", f"p < {LEVEL}"), groups, width=width, caption=caption
    )


def _origin(entry: Entry) -> str:
    """Where the direction of a cell comes from, as far as a folded line says it."""
    if not entry.edited:
        return "none"
    if entry.control:
        return f"{kind_of(entry.cell)} controls"
    if entry.cell.direction is None:
        return "none"
    if is_own(entry.cell):
        return "its own"
    return "its own in another format" if entry.source == entry.cell.target else "another checkpoint's"


def _line(key: tuple[str, str, str], pool: Sequence[Entry]) -> Line:
    n = max(entry.n for entry in pool)
    changes = [entry.change for entry in pool if entry.change is not None]
    change = number_format.points(median(changes), number_format.decimals(n), minus="-") if changes else ""
    tested = [entry.p_holm for entry in pool if entry.p_holm is not None]
    shown = f"{sum(p < LEVEL for p in tested)} of {len(tested)}" if tested else ""
    style = "dim" if pool[0].control else "bold" if not pool[0].edited else ""
    numbers = ((f"{len(pool):,}",), Spread.of(pool).pieces, (change,), (shown,))
    return Line(key, numbers, style)
