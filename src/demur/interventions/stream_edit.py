"""One editing step at one point of the stream, for all rows of a batch, as tables. `edit_table.py` makes these tables.

Each row may have another edit. A row without an edit is not changed, not even by rounding. Projections are computed in float32 or
better, whatever the stream's dtype, and the result is cast back.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from demur.core.errors import InputError, WorkError

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
        removed: a, the direction whose component is removed, x' = x - (x.a - t) a; None if no row has a removal of rank 1.
        removed_level: t, to which that component is set; None if it is 0 in every row.
        read: R of the other low-rank operations, x' = x + (x R^T - t) W; None if no row has one.
        read_level: t of these operations; None if it is 0 in every row.
        write: W, in the shape of R.
        offset: b, what is added, x' = x + b; None if no row adds.
        functions: functions of single positions, with their rows.
        in_prompt: whether each row's edit acts on positions of the prompt; None if every row's edit acts on all positions.
        in_generated: the same for positions after the prompt.
        rows: the number of rows it was made for; None if it holds for every row of any batch.
    """

    removed: Float[Tensor, "row 1 d_model"] | None = None
    removed_level: Float[Tensor, "row 1 1"] | None = None
    read: Float[Tensor, "row rank d_model"] | None = None
    read_level: Float[Tensor, "row 1 rank"] | None = None
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
            removed_level=moved(self.removed_level),
            read=moved(self.read),
            read_level=moved(self.read_level),
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
            if self.removed_level is not None:
                projection = projection - self.removed_level
            if mask is not None:
                projection = projection * mask
            # addcmul makes one pass over the rows. baddbmm would copy them first.
            result = torch.addcmul(result, projection, direction, value=-1)
        if self.read is not None and self.write is not None:
            read, write = (table.to(working).expand(rows, -1, -1) for table in (self.read, self.write))
            coordinates = torch.bmm(stream.to(working), read.transpose(1, 2))
            if self.read_level is not None:
                coordinates = coordinates - self.read_level
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
