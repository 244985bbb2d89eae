"""Which device a name stands for. Imports torch and nothing else that is heavy."""

import torch

from demur.errors import InputError


def find_device(name: str) -> torch.device:
    """The device a name stands for; `auto` is the first GPU, else the processor. Raises `InputError` where it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"{name!r} is not a device; try auto, cpu, cuda or cuda:0") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"{name!r} is not a device that demur computes on; try auto, cpu, cuda or cuda:0")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {name!r} was asked for, but this machine has no usable GPU; use cpu or auto")
    return device
