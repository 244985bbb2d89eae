"""The devices of a model's weights: one device, or several over which accelerate spreads them.

If a model is spread, weights that fit on no GPU stay in main memory or on the disk. The model has `meta` tensors in their place,
and the weights are fetched for each forward pass. So demur never takes the device of a model from its first parameter.
"""

import tempfile
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from demur.core.errors import InputError

SPREAD = "spread"
"""The name for all devices together: GPUs first, then main memory, then the disk."""

HERE = ("auto", "cpu", "cuda", SPREAD)
"""The names of devices that a machine may have; `cuda:1` is the second GPU."""

MaxMemory = Mapping[int | str, int | str]
"""Memory by device, as accelerate takes it: GPU number, `cpu` or `disk` -> bytes, or text such as `10GiB`."""


def find_device(name: str) -> torch.device | None:
    """The device of a name.

    Args:
        name: `auto` for the first GPU or else the CPU, `spread` for all devices, or torch's name of one.

    Returns:
        The device; None for `spread`.

    Raises:
        InputError: for a device that this machine does not have, or that demur does not compute on.
    """
    if name == SPREAD:
        return None
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"{name!r} is not a device; try auto, cpu, cuda, cuda:0 or spread") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"{name!r} is not a device that demur computes on; try auto, cpu, cuda, cuda:0 or spread")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {name!r} was asked for, but this machine has no usable GPU; use cpu or auto")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device {name!r} was asked for, but this machine has {torch.cuda.device_count()} GPUs, counted from 0")
    return device


def input_device(model: nn.Module) -> torch.device:
    """The device for token ids and logits: that of the embedding, or the one to which accelerate moves its input."""
    embedding = model.get_input_embeddings()  # type: ignore[operator]
    for module in (model, embedding):
        hook = getattr(module, "_hf_hook", None)
        for one in getattr(hook, "hooks", (hook,)):
            device = getattr(one, "execution_device", None)
            if device is not None:
                return torch.device(device)
    found: torch.device = next(embedding.parameters()).device
    return found


def weights_dtype(model: nn.Module) -> torch.dtype:
    """The dtype of the stream: that of the weights which are not quantised."""
    return next(weight.dtype for weight in model.parameters() if weight.dtype.is_floating_point)


def bytes_by_device(model: nn.Module) -> dict[str, int]:
    """Bytes of weights on each device; `cpu` or `disk` for weights that are fetched for each forward pass."""
    # Any: accelerate names devices by number, text or torch.device.
    placed: Mapping[str, Any] = getattr(model, "hf_device_map", None) or {}
    found: Counter[str] = Counter()
    for name, weight in model.named_parameters():
        where = str(weight.device)
        if weight.device.type == "meta":
            inside = [part for part in placed if not part or name == part or name.startswith(f"{part}.")]
            where = str(placed[max(inside, key=len)]) if inside else "elsewhere"
        # 4-bit weights have scales, which are not parameters.
        scales = getattr(getattr(weight, "quant_state", None), "absmax", None)
        found[where] += weight.numel() * weight.element_size() + (0 if scales is None else scales.nbytes)
    return dict(found)


def fetched(model: nn.Module, name: str, weight: Tensor) -> Tensor:
    """A weight of a model on its own device. If it is a `meta` tensor, it is fetched from main memory or the disk to the CPU."""
    if weight.device.type != "meta":
        return weight
    from accelerate.utils import align_module_device

    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    with align_module_device(module, torch.device("cpu")):
        return getattr(module, leaf).detach().clone()  # type: ignore[no-any-return]


def spread_options(max_memory: MaxMemory | None) -> tuple[dict[str, object], tempfile.TemporaryDirectory[str]]:
    """Keyword arguments that make `from_pretrained` spread what it loads.

    Args:
        max_memory: how much of each device to use; None for what is free.

    Returns:
        The keyword arguments, and the folder for weights that go to the disk. The folder is deleted with its object.
    """
    folder = tempfile.TemporaryDirectory(prefix="demur-offload-")
    limits = None if max_memory is None else dict(max_memory)
    return {"device_map": "auto", "max_memory": limits, "offload_folder": folder.name}, folder


def spread_loaded(model: nn.Module, max_memory: MaxMemory | None) -> tempfile.TemporaryDirectory[str]:
    """Spread a model that is in main memory. Returns the folder for weights that go to the disk, as `spread_options` does."""
    from accelerate import dispatch_model, infer_auto_device_map

    _, folder = spread_options(max_memory)
    limits = None if max_memory is None else dict(max_memory)
    whole: Any = model
    placed = infer_auto_device_map(whole, limits, no_split_module_classes=list(whole._no_split_modules or ()))
    dispatch_model(whole, placed, offload_dir=folder.name, skip_keys=whole._skip_keys_device_placement)
    return folder
