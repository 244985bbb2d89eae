"""Which rows of a batch have to run in each block: rows that are still equal run once.

Rows of one prompt are equal up to the block where the first of their edits acts. Before that block, one row runs for all of them.
At that block, the edited row gets its own place in the batch. This module only computes indices.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch

from demur.interventions.edit_table import EditTable, tabulate
from demur.interventions.intervention import RowEdits, edit_sequence
from demur.models.layouts import Layout


@dataclass(frozen=True)
class RowSharing:
    """Spans of blocks, and the rows that run in each span.

    Attributes:
        starts: the first block of each span, ascending from 0.
        running: the rows that run in each span, in the order of that span's batch.
        places: for each span and every row, the place in the span's batch of the row that runs for it.
    """

    starts: tuple[int, ...]
    running: tuple[tuple[int, ...], ...]
    places: tuple[tuple[int, ...], ...]

    def span(self, layer: int) -> int:
        """The index of the span that contains a block. The point after the last block belongs to the last span."""
        return max(index for index, start in enumerate(self.starts) if start <= layer)

    def places_at(self, layer: int) -> tuple[int, ...]:
        """For every row, the place in this block's batch of the row that runs for it."""
        return self.places[self.span(layer)]

    def places_before(self, span: int, earlier: int) -> list[int]:
        """For each row that runs in a span, its place in the batch of an earlier span."""
        return [self.places[earlier][row] for row in self.running[span]]


def share(prompts: Sequence[Hashable], first_layers: Sequence[int | None]) -> RowSharing:
    """Find which rows can share a run.

    Args:
        prompts: each row's prompt. Rows with equal prompts are equal until one of them is edited.
        first_layers: the first block where each row is edited; None for a row that is not edited.
    """
    found = RowSharing((), (), ())
    for start in sorted({0, *(first for first in first_layers if first is not None)}):
        place_of_prompt: dict[Hashable, int] = {}
        running, places = list[int](), list[int]()
        for row, (prompt, first) in enumerate(zip(prompts, first_layers, strict=True)):
            unedited = first is None or first > start
            place = place_of_prompt.setdefault(prompt, len(running)) if unedited else len(running)
            places.append(place)
            if place == len(running):
                running.append(row)
        if not found.running or tuple(running) != found.running[-1]:
            found = RowSharing((*found.starts, start), (*found.running, tuple(running)), (*found.places, tuple(places)))
    return found


def share_rows(prompts: Sequence[Hashable], edits: Sequence[RowEdits], layout: Layout, n_layers: int) -> RowSharing:
    """Find which rows with these edits can share a run: none in families whose blocks get arguments made for each row."""
    if layout.rows_apart:
        return share(range(len(prompts)), [0] * len(prompts))
    sequences = [edit_sequence(one) for one in edits]
    first = {one: _first_layer(one, layout, n_layers) for one in dict.fromkeys(sequences)}
    return share(prompts, [first[one] for one in sequences])


def _first_layer(edits: Sequence[RowEdits], layout: Layout, n_layers: int) -> int | None:
    layers = [where.layer for edit in edits for one in edit_sequence(edit) for where in one.points(layout, n_layers)]
    # Rows cannot be split after the last block, so a row edited there is split before it.
    return min(min(layers), n_layers - 1) if layers else None


def tabulate_shared(
    sharing: RowSharing, edits: Sequence[RowEdits], layout: Layout, n_layers: int, d_model: int, device: torch.device | str
) -> EditTable:
    """One table for a forward pass with this sharing: at each point, the edits of the rows that run there."""
    table: EditTable = {}
    # The point after the last block belongs to layer n_layers, and to the last span.
    ends = [*sharing.starts, n_layers + 1]
    for span, running in enumerate(sharing.running):
        own = range(ends[span], ends[span + 1])
        table |= tabulate([edits[row] for row in running], layout, n_layers, d_model, device, own)
    return table
