"""The arithmetic of an edit at one point of the stream, for one row: a low-rank operation, or a function of single positions."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class LowRank:
    """x' = x + (x R^T - t) W + b, with R and W of shape (k, d_model), t of shape (k,) and b of shape (d_model,), float32.

    Attributes:
        read: R, the directions along which the stream is read; None if nothing is read.
        write: W, the vector that is added for each direction of R; None means minus R, which removes the components.
        offset: b, which is always added; None if nothing is.
        level: t, from which the components are counted; None for 0. If W is minus R, they are set to t.
    """

    read: Tensor | None = None
    write: Tensor | None = None
    offset: Tensor | None = None
    level: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Pointwise:
    """x' = function(x), position by position.

    Attributes:
        function: takes the stream of the rows that have this edit, (row, seq, d_model) in float32 or better, on the model's
            device, and returns the changed stream in the same shape and dtype. The result for a row and position may depend
            only on the stream at that row and position.
    """

    function: Callable[[Tensor], Tensor]


Operation = LowRank | Pointwise
