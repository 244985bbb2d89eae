"""Prepacked weights: faster matrix products on a CPU for models in float32 or bfloat16.

torch multiplies a batch with weights as they are stored. oneDNN, which comes with torch, is faster if the weights are stored in
the order of its own loops, most of all for few rows (docs/performance.md). Prepacked weights are a copy in that order. They are
kept for one model at a time, and made only if they take a small part of the free memory. Results differ from torch's by rounding.

torch's own products are used for models on other devices, in other dtypes, quantised, or moved by accelerate, and for every
module that is not a plain `nn.Linear`.
"""

import platform
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType, WeakKeyDictionary, ref

import torch
from torch import Tensor, nn

from demur.models import memory_budget
from demur.models.layouts import Layout

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PART = 4
"""Prepacked weights may take at most the free memory divided by this number."""


@dataclass(frozen=True)
class _Prepacked:
    """A module's prepacked weights, and a sample of its weights (one entry of each row and column) that shows changes."""

    source: ReferenceType[Tensor]
    state: tuple[int, int]
    sample: Tensor
    weight: Tensor

    def is_of(self, module: Any) -> bool:
        """Whether a module still has these weights.

        A new tensor may have the address of a freed one, so the address alone is not enough. peft merges an adapter by writing
        through `.data`, which changes neither the address nor the version, so a sample of the values is compared too.
        """
        same = self.source() is module.weight and self.state == _state(module)
        return same and torch.equal(self.sample, _sample(module))


_kept: WeakKeyDictionary[nn.Module, _Prepacked] = WeakKeyDictionary()
"""Process-wide on purpose: it limits the memory of the process to the prepacked weights of one model. It affects only speed,
never edits."""


@cache
def can_prepack(dtype: str) -> bool:
    """Whether torch has the operators for prepacked weights of a dtype here. Its compiler uses them for frozen weights."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    here = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    if not (x86 and here and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return False
    return dtype == "float32" or (dtype == "bfloat16" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()))


_as_stored: ContextVar[bool] = ContextVar("_as_stored", default=False)


@contextmanager
def as_stored() -> Iterator[None]:
    """Inside, no weights are prepacked, and those that were are freed. For work that has two models in memory."""
    _kept.clear()
    before = _as_stored.set(True)
    try:
        yield
    finally:
        _as_stored.reset(before)


@contextmanager
def prepacked(model: "PreTrainedModel", layout: Layout) -> Iterator[None]:
    """Inside, the linear modules of the blocks and the head use prepacked weights. Enter it under `torch.inference_mode`."""
    modules = [] if _as_stored.get() else _linear_modules(model, layout)
    with ExitStack() as stack:
        for one, kept in _prepack(modules).items():
            one.forward = _forward(one, kept.weight)
            stack.callback(delattr, one, "forward")
        yield


def bytes_prepacked(weights: int, dtype: str, device: str, *, still_to_load: int = 0) -> int:
    """Bytes of the prepacked copy of this many weights; 0 if none is made. `still_to_load`: bytes of weights not yet loaded."""
    needed = memory_budget.BYTES[dtype] * weights
    on_cpu = device == "cpu" or (device == "auto" and not torch.cuda.is_available())
    return needed if on_cpu and can_prepack(dtype) and _fits(needed, still_to_load) else 0


def product(weight: Tensor) -> Callable[[Tensor], Tensor]:
    """A function that multiplies states by the transpose of a weight, with prepacked weights if this machine can."""
    if not _can_prepack_weight(weight):
        return lambda states: states @ weight.T
    ahead, multiply = torch.ops.mkldnn._reorder_linear_weight(weight), torch.ops.mkldnn._linear_pointwise
    return lambda states: multiply(states, ahead, None, "none", [], "")


def _fits(needed: int, still_to_load: int = 0) -> bool:
    return PART * needed <= memory_budget.free("cpu") - still_to_load


def _linear_modules(model: "PreTrainedModel", layout: Layout) -> list[Any]:
    inside = [module for block in layout.find_blocks(model) for module in block.modules()]
    return [one for one in dict.fromkeys([*inside, model.get_output_embeddings()]) if _is_plain(one)]


def _is_plain(module: Any) -> bool:
    # accelerate replaces `forward` to move weights. Quantised weights are of another class.
    if type(module) is not nn.Linear or type(module.weight) is not nn.Parameter or "forward" in vars(module):
        return False
    # Weights made under inference_mode have no version counter.
    return not module.weight.is_inference() and _can_prepack_weight(module.weight)


def _can_prepack_weight(weight: Tensor) -> bool:
    return weight.is_cpu and weight.layout == torch.strided and can_prepack(str(weight.dtype).removeprefix("torch."))


def _state(module: Any) -> tuple[int, int]:
    return module.weight.data_ptr(), module.weight._version


def _sample(module: Any) -> Tensor:
    rows, columns = module.weight.shape
    place = torch.arange(max(rows, columns))
    sample: Tensor = module.weight.detach()[place % rows, place % columns]
    return sample


def forget(model: nn.Module) -> None:
    """Drop the prepacked weights of a model that may have changed. The sample alone can miss a change of a few weights."""
    for module in model.modules():
        _kept.pop(module, None)


def _prepack(modules: list[Any]) -> dict[Any, _Prepacked]:
    """The prepacked weights of all modules, or of none if there is no room. Those of other models are dropped."""
    for other in set(_kept) - set(modules):
        _kept.pop(other, None)
    found = {one: kept for one in modules if (kept := _kept.get(one)) is not None and kept.is_of(one)}
    stale = [one for one in modules if one not in found]
    if stale and not _fits(sum(one.weight.nbytes for one in stale)):
        return {}
    for one in stale:
        weight = torch.ops.mkldnn._reorder_linear_weight(one.weight.detach())
        found[one] = _kept[one] = _Prepacked(ref(one.weight), _state(one), _sample(one).clone(), weight)
    return found


def _forward(module: Any, weight: Tensor) -> Any:
    multiply = torch.ops.mkldnn._linear_pointwise

    def forward(states: Tensor) -> Tensor:
        product: Tensor = multiply(states, weight, module.bias, "none", [], "")
        return product

    return forward
