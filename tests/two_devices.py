"""A machine with two devices, played by the processor: `pretend:0` and `pretend:1`.

A tensor on one of them computes on the processor, and an operation that meets tensors of both raises, as it would on two GPUs.
Registering a device cannot be undone, so this is a program of its own, `python -m tests.two_devices`. It prints as JSON what the
same rows come to on one device and on two, for `tests/test_placement.py`.
"""
# ruff: noqa: E402

import json
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import torch

# What demur computes without gradients is the same either way; tensors of a kind of one's own know no inference mode.
torch.inference_mode = torch.no_grad  # type: ignore[misc, assignment]  # one class in place of another
from accelerate import dispatch_model
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend
from transformers import PreTrainedModel

from demur.directions.direction import from_raw
from demur.engine.decode import decode
from demur.engine.engine_protocol import Continuation, Decoding, Row
from demur.engine.read_activations import stream_activations
from demur.engine.score import continuation_losses, next_tokens
from demur.engine.site_proof import prove_sites
from demur.engine.steer import steer
from demur.interventions.intervention import ablate, add
from demur.models import prepacked_weights
from demur.models.device_placement import bytes_by_device, input_device
from demur.models.families import layout_of
from tests.tiny import tiny_model

Values = tuple[Any, ...]
Named = dict[str, Any]
"""What a kernel is called with: tensors, numbers, devices and lists of them, as torch hands them over."""

NAME = "pretend"
aten = torch.ops.aten
MEET = {aten.copy_.default, aten._to_copy.default, aten.index.Tensor, aten.index_put_.default, aten.index_select.default}


class OnDevice(Tensor):
    """`held` is on the processor, and says it is elsewhere."""

    held: Tensor

    @staticmethod
    def __new__(cls: "type[OnDevice]", inner: Tensor, device: torch.device | None) -> "OnDevice":
        made = Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype, device=device
        )
        made.held = inner
        return made

    def tolist(self) -> Any:
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch calls a method of the class, and declares what refuses the call
        cls, func: OpOverload, types: Iterable[type], args: Values = (), kwargs: Named | None = None
    ) -> object:
        return computed(func, args, kwargs or {})


class Two(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Sees also what is made on a device without a tensor to begin with."""

    def __torch_dispatch__(
        self, func: OpOverload, types: Iterable[type], args: Values = (), kwargs: Named | None = None
    ) -> object:
        return computed(func, args, kwargs or {})


def on_processor(one: object) -> object:
    if isinstance(one, torch.device):
        return torch.device("cpu")
    return one.held if isinstance(one, OnDevice) else one


def computed(function: OpOverload, args: Values, kwargs: Named) -> object:
    tensors = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, torch.Tensor)]
    places = {one.device for one in tensors if one.ndim or one.device.type == NAME}
    away = {place for place in places if place.type == NAME}
    if function not in MEET and len(places) > 1:
        raise RuntimeError(f"{function} met tensors on {sorted(map(str, places))}")
    if function in MEET and function is not aten.copy_.default and len(away) > 1:
        raise RuntimeError(f"{function} met an index on another device: {sorted(map(str, away))}")
    asked = next((one for one in tree_flatten((args, kwargs))[0] if isinstance(one, torch.device)), None)
    target = asked or next(iter(away), None) or torch.device("cpu")
    if function in MEET and asked is None:
        target = tensors[0].device
    inside = tree_map(on_processor, (args, kwargs))
    result = function(*inside[0], **inside[1])
    if function._schema.name.endswith("_") and tensors and result is inside[0][0]:
        return args[0]
    if target.type != NAME:
        return result
    return tree_map(lambda one: OnDevice(one, target) if isinstance(one, torch.Tensor) else one, result)


def _empty_strided(
    size: Sequence[int],
    stride: Sequence[int],
    *,
    dtype: torch.dtype | None = None,
    layout: torch.layout | None = None,
    device: torch.device | None = None,
    pin_memory: bool | None = None,
) -> OnDevice:
    return OnDevice(torch.empty_strided(size, stride, dtype=dtype), device)


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    getattr(target, "held", target).copy_(getattr(source, "held", source))
    return target


def register() -> torch.library.Library:
    _setup_privateuseone_for_python_backend(NAME)
    library = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]  # torch leaves it untyped
    # torch.tensor(..., device=) passes by what sees every other operation.
    library.impl("empty_strided", _empty_strided, "PrivateUse1")  # type: ignore[no-untyped-call]  # the same
    library.impl("_copy_from", _copy_from, "PrivateUse1")  # type: ignore[no-untyped-call]  # the same
    return library


def spread(model: PreTrainedModel) -> PreTrainedModel:
    """The first block on one device, the others on the next, as accelerate places them."""
    blocks = layout_of(model.config).blocks
    names = [name for name, _ in model.named_modules() if name.rpartition(".")[0] == blocks]
    inside = blocks.rpartition(".")[0]
    placed = {name: f"{NAME}:{int(number > 0)}" for number, name in enumerate(names)}
    for parent in (inside, ""):
        for name, _ in (model if not parent else model.get_submodule(parent)).named_children():
            path = f"{parent}.{name}" if parent else name
            if path not in (blocks, inside):
                placed[path] = f"{NAME}:{int('norm' in name or 'head' in name)}"
    for path, device in placed.items():
        for module in model.get_submodule(path).modules():
            for kind in (module._parameters, module._buffers):
                for name, tensor in kind.items():
                    if tensor is not None:
                        moved = tensor.detach().to(device)
                        kind[name] = torch.nn.Parameter(moved, requires_grad=False) if kind is module._parameters else moved
    return dispatch_model(model, placed, main_device=torch.device(f"{NAME}:0"), skip_keys=model._skip_keys_device_placement)


PROMPTS: tuple[tuple[int, ...], ...] = ((5, 6, 7), (8, 9), (10, 11, 12, 13, 14), (15,))


def found(model: PreTrainedModel) -> dict[str, object]:
    """Everything that demur computes with a model, as plain numbers."""
    layout = layout_of(model.config)
    probe = from_raw(torch.randn(32, generator=torch.Generator().manual_seed(1)), name="probe", layer=1)
    sites = ("resid_pre", "resid_post") if layout.parallel else ("resid_pre", "resid_mid", "resid_post")
    edits = [None, add(probe, 3.0, sites=sites), ablate(probe), add(probe, 2.0, layers=[0, 2], positions="generated")]
    rows = [Row(prompt, edit) for edit in edits for prompt in PROMPTS]
    # Rows that stop leave, so that the cache is cut on both devices.
    tokens: dict[int, list[int]] = {}
    for done in decode(model, layout, rows, Decoding(6, stop_ids=tuple(range(3, 40))), batch_tokens=4096):
        tokens |= done
    losses: dict[int, list[float]] = {}
    for indices, values in continuation_losses(model, layout, [Continuation(p, (4, 5), e) for e in edits for p in PROMPTS]):
        losses |= {index: value.tolist() for index, value in zip(indices, values, strict=True)}
    following: dict[int, int] = {}
    for one in next_tokens(model, layout, rows):
        following |= dict(zip(one.indices, one.logits.argmax(-1).tolist(), strict=True))
    read = next(stream_activations(model, layout, PROMPTS, layers=[0, 1, 2]))[1]
    proof = prove_sites(model, layout)
    with steer(model, add(probe, 3.0)):
        steered = model(input_ids=torch.tensor([PROMPTS[0]], device=input_device(model)), use_cache=False).logits
    return {
        "tokens": tokens,
        "losses": losses,
        "following": following,
        "activations": read.tolist(),
        "proof": [proof.edits, proof.worst_sum],
        "steered": steered[0, -1].cpu().tolist(),
    }


def main() -> None:
    torch.set_num_threads(1)
    # Weights on other devices are not packed, and packed ones round otherwise.
    prepacked_weights.can_prepack = cache(lambda dtype: False)
    models = {family: tiny_model(family, attn_implementation="eager") for family in ("llama", "gemma2", "gpt_neox", "granite")}
    one = {family: found(model) for family, model in models.items()}
    library = register()
    with Two():  # type: ignore[no-untyped-call]  # torch leaves it untyped
        spread_over_two = {family: spread(model) for family, model in models.items()}
        two = {family: found(model) for family, model in spread_over_two.items()}
    assert library is not None, "kept, because its functions go with it"
    devices = {family: sorted(bytes_by_device(model)) for family, model in spread_over_two.items()}
    print(json.dumps({"one": one, "two": two, "devices": devices}))


if __name__ == "__main__":
    main()
