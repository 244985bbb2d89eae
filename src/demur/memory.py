"""How many weights a checkpoint has, and how much memory there is, before any weights are read."""

from typing import Any

from demur.errors import InputError
from demur.sources import Source, read_config

BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
SHARE = 0.7
"""Part of the free memory that weights may take; the rest is for activations and the cache of keys and values."""


def parameters(source: Source) -> int | None:
    """Number of weights, from a GGUF file's header or from the config; None where the config alone does not tell."""
    if source.kind == "gguf":
        from gguf import GGUFReader

        assert source.path is not None
        try:
            return sum(int(tensor.n_elements) for tensor in GGUFReader(source.path).tensors)
        except (ValueError, IndexError, KeyError, OSError) as error:
            raise InputError(f"{source.reference!r} cannot be read as a GGUF file ({error}); fetch it again") from error
    config = read_config(source)
    return None if config is None else _count(dict(config))


def _count(config: dict[str, Any]) -> int | None:
    import torch
    from transformers import AutoConfig

    from demur.checkpoints import auto_class

    family = config.pop("model_type", None)
    try:
        made = AutoConfig.for_model(family, **config)
        with torch.device("meta"):
            model = auto_class(made).from_config(made)
    except (ValueError, KeyError, TypeError, ImportError):
        # A config that this version of transformers does not know; loading will say so in its own words.
        return None
    return sum(int(weight.numel()) for weight in model.parameters())


def available(device: str) -> int:
    """Bytes that weights may take on this device now."""
    return int(free(device) * SHARE)


def free(device: str) -> int:
    """Bytes that nothing holds on this device now."""
    import torch

    if device.startswith("cuda") or (device == "auto" and torch.cuda.is_available()):
        return int(torch.cuda.mem_get_info(None if device == "auto" else device)[0])
    import psutil

    return int(psutil.virtual_memory().available)
