"""The edits of a batch as tables, which `engine/hooks.py` applies at each point of the stream.

Each row has its own sequence of edits. A row without an edit at a point is not changed there, not even by rounding. Projections
are computed in float32 or better, whatever the stream's dtype, and the result is cast back.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from demur.core.errors import InputError, WorkError
from demur.interventions.edit_kind import edit_kind
from demur.interventions.intervention import Intervention, RowEdits, edit_sequence
from demur.interventions.operation import LowRank, Operation, Pointwise
from demur.models.layouts import Layout, Point

Stream = Float[Tensor, "row seq d_model"]


@dataclass(frozen=True, eq=False)
class RowFunction:
    """A function of single positions, and the rows of the batch that it changes.

    Attributes:
        function: see `Pointwise`.
        rows: indices of the rows, (row,); None if it changes all rows.
    """

    function: Callable[[Tensor], Tensor]
    rows: Int[Tensor, " row"] | None


@dataclass(frozen=True, eq=False)
class StreamEdit:
    """One editing step at one point of the stream, for all rows of a batch.

    Each row has at most one operation. Rows without one have zeros in the tables. A table of one row applies to all rows.

    Attributes:
        removed: a, the direction whose component is removed, x' = x - (x.a) a; None if no row has a removal of rank 1.
        read: R of the other low-rank operations, x' = x + (x R^T) W; None if no row has one.
        write: W, in the shape of R.
        offset: b, what is added, x' = x + b; None if no row adds.
        functions: functions of single positions, with their rows.
        in_prompt: whether each row's edit acts on positions of the prompt; None if every row's edit acts on all positions.
        in_generated: the same for positions after the prompt.
        rows: the number of rows it was made for; None if it holds for every row of any batch.
    """

    removed: Float[Tensor, "row 1 d_model"] | None = None
    read: Float[Tensor, "row rank d_model"] | None = None
    write: Float[Tensor, "row rank d_model"] | None = None
    offset: Float[Tensor, "row 1 d_model"] | None = None
    functions: tuple[RowFunction, ...] = ()
    in_prompt: Bool[Tensor, " row"] | None = None
    in_generated: Bool[Tensor, " row"] | None = None
    rows: int | None = None

    def on(self, device: torch.device) -> "StreamEdit":
        """The same edit with its tables on a device."""

        def moved(table: Tensor | None) -> Tensor | None:
            return None if table is None else table.to(device)

        return StreamEdit(
            removed=moved(self.removed),
            read=moved(self.read),
            write=moved(self.write),
            offset=moved(self.offset),
            functions=tuple(RowFunction(one.function, moved(one.rows)) for one in self.functions),
            in_prompt=moved(self.in_prompt),
            in_generated=moved(self.in_generated),
            rows=self.rows,
        )

    def apply(self, stream: Stream, onto: Stream, generated: Bool[Tensor, " seq"] | None = None) -> Stream:
        """`onto` plus the change that this edit makes to `stream`.

        Args:
            stream: the residual stream at this point.
            onto: the tensor that is changed: the stream itself, or the output of a branch before it is added to the stream.
            generated: which positions come after the prompt; needed only if some row's edit acts on a part of the positions.

        Returns:
            The changed tensor, in the shape and dtype of `onto`.

        Raises:
            WorkError: if the edit was made for another number of rows.
            InputError: if an edit needs to know where the prompt ends, and this is not known.
        """
        rows, working = stream.shape[0], torch.promote_types(onto.dtype, torch.float32)
        if self.rows is not None and self.rows != rows:
            raise WorkError(
                f"a table of edits for {self.rows} rows was applied to a batch of {rows} rows; make a table for this batch"
            )
        result = onto.to(working)
        mask = self._mask(generated)
        if self.removed is not None:
            direction = self.removed.to(working).expand(rows, -1, -1)
            projection = torch.bmm(stream.to(working), direction.transpose(1, 2))
            if mask is not None:
                projection = projection * mask
            # addcmul makes one pass over the rows. baddbmm would copy them first.
            result = torch.addcmul(result, projection, direction, value=-1)
        if self.read is not None and self.write is not None:
            read, write = (table.to(working).expand(rows, -1, -1) for table in (self.read, self.write))
            coordinates = torch.bmm(stream.to(working), read.transpose(1, 2))
            result = torch.baddbmm(result, coordinates if mask is None else coordinates * mask, write)
        if self.offset is not None:
            result = result + (self.offset if mask is None else self.offset * mask)
        for one in self.functions:
            result = _apply_function(one, stream.to(working), result, mask, same=stream is onto)
        return result.to(onto.dtype)

    def _mask(self, generated: Bool[Tensor, " seq"] | None) -> Bool[Tensor, "row seq 1"] | None:
        """Where each row's edit acts; None if every row's edit acts on all positions."""
        if self.in_prompt is None or self.in_generated is None:
            return None
        if generated is None:
            raise InputError("an edit of prompt or generated positions needs to know where the prompt ends")
        return torch.where(generated[None, :], self.in_generated[:, None], self.in_prompt[:, None])[..., None]


def _apply_function(one: RowFunction, stream: Tensor, result: Tensor, mask: Tensor | None, *, same: bool) -> Tensor:
    """`result` with a function applied to its rows. `same` says that the stream itself is changed, and not a branch's output."""
    before = stream if one.rows is None else stream[one.rows]
    after = one.function(before)
    if after.shape != before.shape or after.dtype != before.dtype:
        raise WorkError(
            f"an edit's function gave {tuple(after.shape)} in {after.dtype} for a stream of {tuple(before.shape)} in "
            f"{before.dtype}; it has to keep shape and dtype"
        )
    old = result if one.rows is None else result[one.rows]
    # If the stream itself is changed, take the function's result directly: adding a difference would round it.
    new = after if same else old + (after - before)
    if mask is not None:
        new = torch.where(mask if one.rows is None or mask.shape[0] == 1 else mask[one.rows], new, old)
    if one.rows is None:
        return new
    return result.index_copy(0, one.rows, new)


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
            for where in edit.points(layout, n_layers):
                if layers is None or where.layer in layers:
                    edits_at.setdefault(where, [[] for _ in places])[place].append(edit)
    # Points with the same edits share their tensors, so an edit at every point of the stream takes no more memory than one.
    made: dict[tuple[int, ...], StreamEdit] = {}
    table: EditTable = {}
    for where, of_sequence in sorted(edits_at.items()):
        steps = []
        for step in range(max(map(len, of_sequence))):
            edits = [own[step] if step < len(own) else None for own in of_sequence]
            key = tuple(id(edit) for edit in edits)
            if key not in made:
                made[key] = _stream_edit(edits, sequence_of_row, d_model, device)
            steps.append(made[key])
        table[where] = tuple(steps)
    return table


def _check_width(edit: Intervention, d_model: int) -> None:
    direction = edit.direction
    if direction is not None and direction.vector.shape[0] != d_model:
        raise InputError(
            f"direction {direction.name!r} has width {direction.vector.shape[0]}, but this model's residual "
            f"stream has width {d_model}; use a direction extracted from a checkpoint of that width"
        )


def _stream_edit(
    edits: Sequence[Intervention | None],
    sequence_of_row: Int[Tensor, " row"] | None,
    d_model: int,
    device: torch.device | str,
) -> StreamEdit:
    """One step at one point, from the edit of each sequence and the sequence of each row (None if there is only one)."""
    operations = [None if edit is None else edit_kind(edit.kind).operation(edit) for edit in edits]
    for edit, operation in zip(edits, operations, strict=True):
        if edit is not None and isinstance(operation, LowRank):
            _check_shapes(edit, operation, d_model)
    low_rank = [operation if isinstance(operation, LowRank) else None for operation in operations]
    other = [None if one is None or _removes_one(one) else one for one in low_rank]
    scoped = any(edit.positions != "all" for edit in edits if edit is not None)

    def per_row(table: Tensor | None) -> Tensor | None:
        if table is None:
            return None
        moved = table.to(device)
        return moved if sequence_of_row is None else moved[sequence_of_row]

    def acts_in(part: str) -> Tensor | None:
        flags = [edit is not None and edit.positions in ("all", part) for edit in edits]
        return per_row(torch.tensor(flags)) if scoped else None

    return StreamEdit(
        removed=per_row(_stacked([one.read if one is not None and _removes_one(one) else None for one in low_rank], d_model)),
        read=per_row(_stacked([None if one is None else one.read for one in other], d_model)),
        write=per_row(_stacked([None if one is None else _written(one) for one in other], d_model)),
        offset=per_row(_stacked([None if one is None or one.offset is None else one.offset[None] for one in low_rank], d_model)),
        functions=_functions(operations, sequence_of_row),
        in_prompt=acts_in("prompt"),
        in_generated=acts_in("generated"),
        rows=None if sequence_of_row is None else len(sequence_of_row),
    )


def _removes_one(operation: LowRank) -> bool:
    """Whether an operation removes the component along one vector. There is a faster product for this case."""
    return operation.read is not None and operation.write is None and operation.read.shape[0] == 1


def _written(operation: LowRank) -> Tensor | None:
    """W of an operation, also if W is minus R by default."""
    if operation.write is None and operation.read is not None:
        return -operation.read
    return operation.write


def _check_shapes(edit: Intervention, operation: LowRank, d_model: int) -> None:
    """Raises `InputError` for an operation of a kind of edit whose tensors do not fit the model or each other."""
    read, write, offset = operation.read, operation.write, operation.offset
    fits = (
        (read is None or (read.ndim == 2 and read.shape[1] == d_model))
        and (write is None or (read is not None and write.shape == read.shape))
        and (offset is None or offset.shape == (d_model,))
    )
    if not fits:
        shapes = [None if one is None else tuple(one.shape) for one in (read, write, offset)]
        raise InputError(
            f"the edit of kind {edit.kind!r} reads, writes and adds tensors of shape {', '.join(map(str, shapes))}, but a stream "
            f"of width {d_model} takes (k, {d_model}), (k, {d_model}) and ({d_model},)"
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
