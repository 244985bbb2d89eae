"""Rows that are still equal run once: which row of a batch stands for which, block by block.

Rows of one prompt compute the same up to the block where the first of their edits acts. Below it one of them runs for all; before
it, each row parts from the one that stood for it. Pure bookkeeping over indices: every row computes what it would compute alone.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch

from demur.interventions.intervention import EditTable, RowEdits, program, tabulate
from demur.models.layouts import Layout, point


@dataclass(frozen=True)
class Sharing:
    """Spans of blocks and the rows that run in each.

    `starts` are the first blocks of the spans, ascending from 0. `running` names the rows of each span. `standing` says for every
    row of the job at which place of a span's batch the row is that stands for it.
    """

    starts: tuple[int, ...]
    running: tuple[tuple[int, ...], ...]
    standing: tuple[tuple[int, ...], ...]

    def span(self, layer: int) -> int:
        """The span that a block is in; what lies behind the last block is in the last span."""
        return max(index for index, start in enumerate(self.starts) if start <= layer)

    def at(self, layer: int) -> tuple[int, ...]:
        """For every row of the job, the place of its stand-in in the batch at this block."""
        return self.standing[self.span(layer)]

    def origins(self, span: int, before: int) -> list[int]:
        """For each row of a span, its place in the batch of an earlier one."""
        return [self.standing[before][row] for row in self.running[span]]


def share(prompts: Sequence[Hashable], first_layers: Sequence[int | None]) -> Sharing:
    """Row i has prompt `prompts[i]` and is first edited in block `first_layers[i]`, or nowhere."""
    found = Sharing((), (), ())
    for start in sorted({0, *(first for first in first_layers if first is not None)}):
        stand_ins: dict[Hashable, int] = {}
        running, standing = list[int](), list[int]()
        for row, (prompt, first) in enumerate(zip(prompts, first_layers, strict=True)):
            equal = first is None or first > start
            place = stand_ins.setdefault(prompt, len(running)) if equal else len(running)
            standing.append(place)
            if place == len(running):
                running.append(row)
        if not found.running or tuple(running) != found.running[-1]:
            found = Sharing((*found.starts, start), (*found.running, tuple(running)), (*found.standing, tuple(standing)))
    return found


def share_rows(prompts: Sequence[Hashable], edits: Sequence[RowEdits], layout: Layout, n_layers: int) -> Sharing:
    """The sharing of rows with these edits; none in families whose blocks are given arguments that are made for each row."""
    if layout.rows_apart:
        return share(range(len(prompts)), [0] * len(prompts))
    programs = [program(one) for one in edits]
    first = {one: _first_layer(one, layout, n_layers) for one in dict.fromkeys(programs)}
    return share(prompts, [first[one] for one in programs])


def _first_layer(edits: Sequence[RowEdits], layout: Layout, n_layers: int) -> int | None:
    points = [where for edit in edits for one in program(edit) for where in one.points(layout, n_layers)]
    # Behind the last block no row can part any more, so a row that is edited there parts before it.
    return min(min(points) // 2, n_layers - 1) if points else None


def tabulate_shared(
    sharing: Sharing, edits: Sequence[RowEdits], layout: Layout, n_layers: int, d_model: int, device: torch.device | str
) -> EditTable:
    """One table for a pass with this sharing: at each point, the edits of the rows that run there."""
    table: EditTable = {}
    ends = [*(point(start, "resid_pre") for start in sharing.starts), point(n_layers, "resid_pre") + 1]
    for span, running in enumerate(sharing.running):
        own = range(ends[span], ends[span + 1])
        table |= tabulate([edits[row] for row in running], layout, n_layers, d_model, device, own)
    return table
