"""Matrix products on a processor, of models in float32 or bfloat16, with their weights packed ahead.

torch multiplies a batch with weights as they lie in memory. oneDNN, which comes with it, multiplies faster where they lie in the
layout of its own loops, for few rows most of all (docs/performance.md). The packed weights are a copy: they are kept for one
model at a time, and made only where they take a small part of the free memory. Products differ from torch's by rounding.

Models on other devices, in other types, quantised or moved about by accelerate are left alone, and so is every map that is not a
plain linear one.
"""

import platform
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
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
"""One in so many bytes of the free memory may go to packed weights."""


@dataclass(frozen=True)
class _Packed:
    """A map's packed weights, and what tells whether the map still has those weights: an entry of each row and column."""

    source: ReferenceType[Tensor]
    state: tuple[int, int]
    sample: Tensor
    weight: Tensor

    def is_of(self, module: Any) -> bool:
        """Whether a map has them. Another tensor may lie where one was that is gone, so the place alone does not tell; and what
        is written through `.data`, as peft merges an adapter, changes neither place nor version, so values are looked at too.
        """
        same = self.source() is module.weight and self.state == _state(module)
        return same and torch.equal(self.sample, _sample(module))


_kept: WeakKeyDictionary[nn.Module, _Packed] = WeakKeyDictionary()


@cache
def can_pack(dtype: str) -> bool:
    """Whether torch has oneDNN's products in a precision here: the operators that torch's compiler uses for frozen weights."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    here = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    if not (x86 and here and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return False
    return dtype == "float32" or (dtype == "bfloat16" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()))


@contextmanager
def packed(model: "PreTrainedModel", layout: Layout) -> Iterator[None]:
    """Inside, the maps of the model's blocks and its head use packed weights. Enter it under `torch.inference_mode`."""
    maps = _maps(model, layout)
    with ExitStack() as stack:
        for one, kept in _pack(maps).items():
            one.forward = _forward(one, kept.weight)
            stack.callback(delattr, one, "forward")
        yield


def bytes_packed(weights: int, dtype: str, device: str, *, beside: int = 0) -> int:
    """What the packed copy of so many weights takes on a device; 0 where none is made. `beside` are bytes still to be loaded."""
    needed = memory_budget.BYTES[dtype] * weights
    on_processor = device == "cpu" or (device == "auto" and not torch.cuda.is_available())
    return needed if on_processor and can_pack(dtype) and _fits(needed, beside) else 0


def product(weight: Tensor) -> Callable[[Tensor], Tensor]:
    """What multiplies states with the transpose of a weight as fast as demur does here: packed ahead where it does that."""
    if not _packable(weight):
        return lambda states: states @ weight.T
    ahead, multiply = torch.ops.mkldnn._reorder_linear_weight(weight), torch.ops.mkldnn._linear_pointwise
    return lambda states: multiply(states, ahead, None, "none", [], "")


def _fits(needed: int, beside: int = 0) -> bool:
    return PART * needed <= memory_budget.free("cpu") - beside


def _maps(model: "PreTrainedModel", layout: Layout) -> list[Any]:
    inside = [module for block in layout.find_blocks(model) for module in block.modules()]
    return [one for one in dict.fromkeys([*inside, model.get_output_embeddings()]) if _is_plain(one)]


def _is_plain(module: Any) -> bool:
    # A forward of its own is one that accelerate put there, to move weights; weights of a class of their own are quantised.
    if type(module) is not nn.Linear or type(module.weight) is not nn.Parameter or "forward" in vars(module):
        return False
    # Weights made under inference_mode count no versions.
    return not module.weight.is_inference() and _packable(module.weight)


def _packable(weight: Tensor) -> bool:
    return weight.is_cpu and weight.layout == torch.strided and can_pack(str(weight.dtype).removeprefix("torch."))


def _state(module: Any) -> tuple[int, int]:
    return module.weight.data_ptr(), module.weight._version


def _sample(module: Any) -> Tensor:
    rows, columns = module.weight.shape
    place = torch.arange(max(rows, columns))
    sample: Tensor = module.weight.detach()[place % rows, place % columns]
    return sample


def forget(model: nn.Module) -> None:
    """Let the packed weights of a model go: it may have been changed in too few places for a sample to show."""
    for module in model.modules():
        _kept.pop(module, None)


def _pack(maps: list[Any]) -> dict[Any, _Packed]:
    """The packed weights of all of them, or of none where there is no room. Those of other models are let go."""
    for other in set(_kept) - set(maps):
        _kept.pop(other, None)
    found = {one: kept for one in maps if (kept := _kept.get(one)) is not None and kept.is_of(one)}
    stale = [one for one in maps if one not in found]
    if stale and not _fits(sum(one.weight.nbytes for one in stale)):
        return {}
    for one in stale:
        weight = torch.ops.mkldnn._reorder_linear_weight(one.weight.detach())
        found[one] = _kept[one] = _Packed(ref(one.weight), _state(one), _sample(one).clone(), weight)
    return found


def _forward(module: Any, weight: Tensor) -> Any:
    multiply = torch.ops.mkldnn._linear_pointwise

    def forward(states: Tensor) -> Tensor:
        product: Tensor = multiply(states, weight, module.bias, "none", [], "")
        return product

    return forward
