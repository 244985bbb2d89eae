"""Transfer: refusal rates by the checkpoint that a direction came from and the checkpoint that it was applied to."""

from collections.abc import Sequence
from typing import ClassVar

from demur.core import number_format
from demur.report.cell_labels import BASELINE
from demur.report.cell_view import Entry
from demur.report.figure_contents import HeatMap, HeatMaps, Tile
from demur.report.figure_spec import FigureSpec, Sheet, TableSpec
from demur.report.result_tables import matrix_table, readable_matrix
from demur.report.sections.control_pools import MANY, Spread
from demur.report.sections.page_address import cell_address
from demur.report.sections.rate_bars import pool_tip, rate_numbers, rates_in_words, readable_rate_numbers, tip_of
from demur.report.sections.section import ReportView
from demur.report.sections.transfer_matrix import Matrix

_READ = "Refusal rates by the source of the direction (rows) and the checkpoint that it was applied to (columns)"

MOST_WRITTEN = 20
"""With more columns, the rates are not written into the map: they could not be read. They are in its table and at the pointer."""


class Transfer:
    """The figure `transfer`. Each of its matrices is a static file."""

    part: ClassVar[str] = "transfer"

    def figures(self, view: ReportView) -> Sequence[FigureSpec]:
        """A heat map for each kind of edit, coefficient and instruction set."""
        if not view.matrices:
            return []
        maps = [_map(matrix) for matrix in view.matrices]
        caption = f"{_READ}; judge {view.judge}."
        if any(matrix.rows[0] == BASELINE for matrix in view.matrices):
            caption += " The first row is the checkpoint without an edit."
        if any(matrix.controls for matrix in view.matrices):
            caption += " The last rows are controls."
        if any(len(set(matrix.labels.values())) < len(matrix.labels) for matrix in view.matrices):
            caption += f" {MANY} or more controls of one kind are one row: their median, then the lowest and the highest rate."
        if any(not one.written for one in maps):
            caption += " White: no refusals; the darker, the more."
        title = "Refusal rates by source of the direction and by target"
        sheets = [_sheet(matrix, one, view.judge) for matrix, one in zip(view.matrices, maps, strict=True)]
        return [FigureSpec("transfer", title, caption, HeatMaps(tuple(maps)), tuple(sheets))]

    def tables(self, view: ReportView) -> Sequence[TableSpec]:
        """One for each matrix; the page shows them with the figure."""
        return [
            TableSpec(matrix.name, matrix.title, matrix_table(matrix), readable_matrix(matrix), on_page=False)
            for matrix in view.matrices
        ]


def _map(matrix: Matrix) -> HeatMap:
    rows, pools = tuple(dict.fromkeys(matrix.labels[row] for row in matrix.rows)), matrix.pools()
    controls = frozenset(matrix.labels[row] for row in matrix.controls)
    rules = [1] if matrix.rows[0] == BASELINE else []
    if controls:
        rules.append(len(rows) - len(controls))
    dose = f", {matrix.dose}" if matrix.dose else ""
    return HeatMap(
        title=matrix.title,
        rows=rows,
        columns=matrix.columns,
        tiles=tuple(tuple(_tile(pools.get((row, column))) for column in matrix.columns) for row in rows),
        heading=(f"{matrix.done}{dose}", f"{matrix.instructions} instructions"),
        row_title="direction from",
        column_title="target",
        written=len(matrix.columns) <= MOST_WRITTEN,
        corner="Direction from",
        controls=controls,
        rules=tuple(rules),
    )


def _tile(pool: Sequence[Entry] | None) -> Tile | None:
    if pool is None:
        return None
    entry = pool[0]
    if len(pool) > 1:
        spread = Spread.of(pool)
        reach = " ".join(spread.pieces[1:])
        return Tile(spread.middle, spread.pieces[0], f"{reach}, {len(pool)} controls".lstrip(", "), reach, pool_tip(pool))
    bounds = number_format.interval(entry.interval, number_format.decimals(entry.n))
    text = number_format.percent(entry.rate, entry.n)
    answers = f"; {entry.shares.words}" if entry.shares else ""
    return Tile(entry.rate, text, f"{bounds}, n = {entry.n}{answers}", f"n = {entry.n}", tip_of(entry), cell_address(entry))


def _sheet(matrix: Matrix, one: HeatMap, judge: str) -> Sheet:
    shown = [entry for row in matrix.rows for column in matrix.columns if (entry := matrix.cells.get((row, column)))]
    said, data = rates_in_words(matrix.title, shown), rate_numbers(shown)
    return Sheet(
        matrix.name, matrix.title, f"{_READ}; judge {judge}.", said, data, HeatMaps((one,)), readable_rate_numbers(shown)
    )
