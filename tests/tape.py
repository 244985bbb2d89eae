"""A step captured as an accelerator's graph would be, on the processor: its kernels, in order, on the tensors that they had.

Python runs once, while it is captured. A replay repeats every operation on the same memory, with the same numbers from Python, so
a step that reads anything from Python again, or makes a tensor of it, gives what it gave. What a graph cannot hold is refused:
values that Python reads, results whose shapes depend on values, and tensors made of Python's numbers.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Step = Callable[[], Tensor]
"""As in `benchmarks.captured`."""
Values = tuple[Any, ...]
Named = dict[str, Any]
"""What a kernel is called with: tensors, numbers and lists of them, as torch hands them over."""

ATEN = torch.ops.aten
NOT_IN_A_GRAPH = {
    ATEN._local_scalar_dense,
    ATEN.equal,
    ATEN.is_nonzero,
    ATEN.lift_fresh,
    ATEN.masked_select,
    ATEN.nonzero,
}


class Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Takes down what runs inside."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # the same
        self.calls: list[tuple[OpOverload, Values, Named, list[Tensor]]] = []

    def __torch_dispatch__(
        self, func: OpOverload, types: Iterable[type], args: Values = (), kwargs: Named | None = None
    ) -> object:
        masked = func.overloadpacket in (ATEN.index, ATEN.index_put, ATEN.index_put_) and any(
            one is not None and one.dtype == torch.bool for one in args[1]
        )
        if masked or func.overloadpacket in NOT_IN_A_GRAPH:
            raise RuntimeError(f"{func} cannot be captured")
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, tensors(out)))
        return out

    def replay(self) -> None:
        """Every operation once more; what it gives goes to where it lay."""
        for func, args, kwargs, places in self.calls:
            for place, again in zip(places, tensors(func(*args, **kwargs)), strict=True):
                if again.untyped_storage().data_ptr() != place.untyped_storage().data_ptr():
                    place.copy_(again)


def tensors(found: object) -> list[Tensor]:
    return [one for one in tree_leaves(found) if isinstance(one, Tensor)]


def on_tape(step: Step) -> Step:
    """Captures a step, as `benchmarks.captured.graph` does on an accelerator."""
    tape = Tape()
    with tape:
        result = step()

    def replay() -> Tensor:
        tape.replay()
        return result

    return replay
