"""The edits of a batch as tables, which `engine/hooks.py` applies at each point of the stream.

Each row has its own sequence of edits. A row without an edit at a point is not changed there, not even by rounding. Projections
are computed in float32 or better, whatever the stream's dtype, and the result is cast back.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from demur.core.errors import InputError
from demur.interventions.edit_kind import differs_by_point, edit_kind, operation_of
from demur.interventions.intervention import Intervention, RowEdits, edit_sequence
from demur.interventions.operation import LowRank, Operation, Pointwise
from demur.interventions.stream_edit import RowFunction, StreamEdit
from demur.models.layouts import Layout, Point

EditTable = dict[Point, tuple[StreamEdit, ...]]
"""Point of the stream -> the steps applied there, in order."""


def tabulate(
    rows: Sequence[RowEdits],
    layout: Layout,
    n_layers: int,
    d_model: int,
    device: torch.device | str,
    layers: range | None = None,
) -> EditTable:
    """One table of edits for a batch.

    Args:
        rows: the edits of each row: None, one edit, or several that act in order.
        layout: where the model's family has its sites.
        n_layers: the number of the model's blocks.
        d_model: width of the residual stream.
        device: where the tables go.
        layers: the layers whose points are wanted, all by default. The point after the last block belongs to layer `n_layers`.

    Returns:
        The table. If all rows have the same edits, its tensors have one row, which applies to every row of any batch.

    Raises:
        InputError: for a direction of another width, and for a layer or site that the model does not have.
    """
    # Many rows have the same sequence of edits, so the work is done once for each sequence.
    sequences = [edit_sequence(row) for row in rows]
    places = {one: place for place, one in enumerate(dict.fromkeys(sequences))}
    sequence_of_row = None if len(places) == 1 else torch.tensor([places[one] for one in sequences], device=device)
    edits_at: dict[Point, list[list[Intervention]]] = {}
    for one, place in places.items():
        for edit in one:
            _check_width(edit, d_model)
            if edit.gate is not None:
                raise InputError(
                    f"an edit of kind {edit.kind!r} has a gate, which is decided for each prompt before the edit acts; use "
                    "demur.generate, or give the edit without a gate"
                )
            for where in edit.points(layout, n_layers):
                if layers is None or where.layer in layers:
                    edits_at.setdefault(where, [[] for _ in places])[place].append(edit)
    # Points with the same edits share their tensors, so an edit at every point of the stream takes no more memory than one.
    tables, made = _Tables(sequence_of_row, device), dict[tuple[object, ...], StreamEdit]()
    table: EditTable = {}
    for where, of_sequence in sorted(edits_at.items()):
        steps = []
        for step in range(max(map(len, of_sequence))):
            edits = [own[step] if step < len(own) else None for own in of_sequence]
            differs = any(edit is not None and differs_by_point(edit_kind(edit.kind)) for edit in edits)
            key = (*map(id, edits), where if differs else None)
            if key not in made:
                made[key] = _stream_edit(edits, where, sequence_of_row, d_model, tables)
            steps.append(made[key])
        table[where] = tuple(steps)
    return table


def _check_width(edit: Intervention, d_model: int) -> None:
    for direction in edit.artefacts:
        if direction.vector.shape[0] != d_model:
            raise InputError(
                f"direction {direction.name!r} has width {direction.vector.shape[0]}, but this model's residual "
                f"stream has width {d_model}; use a direction extracted from a checkpoint of that width"
            )


def _stream_edit(
    edits: Sequence[Intervention | None],
    where: Point,
    sequence_of_row: Int[Tensor, " row"] | None,
    d_model: int,
    tables: "_Tables",
) -> StreamEdit:
    """One step at one point, from the edit of each sequence and the sequence of each row (None if there is only one)."""
    operations = [None if edit is None else operation_of(edit_kind(edit.kind), edit, where) for edit in edits]
    for edit, operation in zip(edits, operations, strict=True):
        if edit is not None and isinstance(operation, LowRank):
            _check_shapes(edit, operation, d_model)
    low_rank = [operation if isinstance(operation, LowRank) else None for operation in operations]
    removing = [one if one is not None and _removes_one(one) else None for one in low_rank]
    other = [None if one is None or _removes_one(one) else one for one in low_rank]
    scoped = any(edit.positions != "all" for edit in edits if edit is not None)

    def acts_in(part: str) -> Tensor | None:
        flags = [edit is not None and edit.positions in ("all", part) for edit in edits]
        return tables.per_row(part, torch.tensor(flags)) if scoped else None

    removed = _stacked([None if one is None else one.read for one in removing], d_model)
    read = _stacked([None if one is None else one.read for one in other], d_model)
    rank = 0 if read is None else read.shape[1]
    return StreamEdit(
        removed=tables.per_row("removed", removed),
        removed_level=tables.per_row("removed level", _levels(removing, 1)),
        read=tables.per_row("read", read),
        read_level=tables.per_row("read level", _levels(other, rank)),
        write=tables.per_row("write", _stacked([None if one is None else _written(one) for one in other], d_model)),
        offset=tables.per_row(
            "offset", _stacked([None if one is None or one.offset is None else one.offset[None] for one in low_rank], d_model)
        ),
        functions=_functions(operations, sequence_of_row),
        in_prompt=acts_in("prompt"),
        in_generated=acts_in("generated"),
        rows=None if sequence_of_row is None else len(sequence_of_row),
    )


class _Tables:
    """Makes tables with one entry for each row from tables with one entry for each sequence.

    A table that is equal to the one at the point before is used again. So an edit whose direction is the same at each point and
    whose level differs takes hardly more memory than one that is the same at each point.
    """

    def __init__(self, sequence_of_row: Int[Tensor, " row"] | None, device: torch.device | str) -> None:
        self._sequence_of_row, self._device = sequence_of_row, device
        self._last: dict[str, tuple[Tensor, Tensor]] = {}

    def per_row(self, name: str, table: Tensor | None) -> Tensor | None:
        """The entries of a table, one for each row, on the device."""
        if table is None:
            return None
        known = self._last.get(name)
        if known is not None and known[0].shape == table.shape and torch.equal(known[0], table):
            return known[1]
        moved = table.to(self._device)
        made = moved if self._sequence_of_row is None else moved[self._sequence_of_row]
        self._last[name] = table, made
        return made


def _removes_one(operation: LowRank) -> bool:
    """Whether an operation removes or sets the component along one vector. There is a faster product for this case."""
    return operation.read is not None and operation.write is None and operation.read.shape[0] == 1


def _written(operation: LowRank) -> Tensor | None:
    """W of an operation, also if W is minus R by default."""
    if operation.write is None and operation.read is not None:
        return -operation.read
    return operation.write


def _levels(operations: Sequence[LowRank | None], rank: int) -> Float[Tensor, "sequence 1 rank"] | None:
    """The levels of all sequences, with zeros where a sequence has none or fewer; None if no sequence has any."""
    if all(one is None or one.level is None for one in operations):
        return None
    table = torch.zeros(len(operations), 1, rank)
    for index, one in enumerate(operations):
        if one is not None and one.level is not None:
            table[index, 0, : one.level.shape[0]] = one.level
    return table


def _check_shapes(edit: Intervention, operation: LowRank, d_model: int) -> None:
    """Raises `InputError` for an operation of a kind of edit whose tensors do not fit the model or each other."""
    read, write, offset, level = operation.read, operation.write, operation.offset, operation.level
    fits = (
        (read is None or (read.ndim == 2 and read.shape[1] == d_model))
        and (write is None or (read is not None and write.shape == read.shape))
        and (offset is None or offset.shape == (d_model,))
        and (level is None or (read is not None and level.shape == read.shape[:1]))
    )
    if not fits:
        *shapes, levels = [None if one is None else tuple(one.shape) for one in (read, write, offset, level)]
        raise InputError(
            f"the edit of kind {edit.kind!r} reads, writes and adds tensors of shape {', '.join(map(str, shapes))}, with levels "
            f"of shape {levels}, but a stream of width {d_model} takes (k, {d_model}), (k, {d_model}) and ({d_model},), with "
            "levels of shape (k,)"
        )


def _stacked(matrices: Sequence[Tensor | None], d_model: int) -> Float[Tensor, "sequence rank d_model"] | None:
    """The matrices of all sequences in one table, with zeros where a sequence has none or one of lower rank."""
    ranks = [one.shape[0] for one in matrices if one is not None]
    if not ranks:
        return None
    table = torch.zeros(len(matrices), max(ranks), d_model)
    for index, one in enumerate(matrices):
        if one is not None:
            table[index, : one.shape[0]] = one
    return table


def _functions(operations: Sequence[Operation | None], sequence_of_row: Int[Tensor, " row"] | None) -> tuple[RowFunction, ...]:
    found = []
    for index, operation in enumerate(operations):
        if isinstance(operation, Pointwise):
            rows = None if sequence_of_row is None else torch.nonzero(sequence_of_row == index)[:, 0]
            found.append(RowFunction(operation.function, rows))
    return tuple(found)
