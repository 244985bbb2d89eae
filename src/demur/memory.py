"""How many weights a checkpoint has, and how much memory there is, before any weights are read."""

from dataclasses import dataclass
from typing import Any

from demur import gguf
from demur.placement import SPREAD
from demur.sources import Source, read_config

BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
SHARE = 0.7
"""Part of the free memory that weights may take; the rest is for activations and the cache of keys and values."""


@dataclass(frozen=True)
class Weights:
    """How many weights a checkpoint has, how many bitsandbytes would quantise, and how its folder quantises them `already`."""

    total: int
    linear: int
    already: str | None = None

    def size(self, dtype: str, quantise: str | None = None) -> int:
        """Bytes in memory."""
        from demur.quantisation import BYTES as QUANTISED

        each = QUANTISED.get(quantise or self.already or "", BYTES[dtype])
        return int((self.total - self.linear) * BYTES[dtype] + self.linear * each)


def weights(source: Source) -> Weights | None:
    """From a GGUF file's header or from the config; None where the config alone does not tell."""
    if source.kind == "gguf":
        assert source.path is not None
        found = gguf.header(source.path)
        return Weights(found.weights, found.linear)
    config = read_config(source)
    return None if config is None else _count(dict(config))


def _count(config: dict[str, Any]) -> Weights | None:
    import torch
    from torch import nn
    from transformers import AutoConfig
    from transformers.pytorch_utils import Conv1D

    from demur.loading import auto_class

    family, stored = config.pop("model_type", None), config.pop("quantization_config", None) or {}
    try:
        made = AutoConfig.for_model(family, **config)
        with torch.device("meta"):
            model = auto_class(made).from_config(made)
    except Exception:
        # A config that this version of transformers does not know or take; loading will say so in its own words.
        return None
    head = model.get_output_embeddings()
    maps = [one for one in model.modules() if (type(one) is nn.Linear or isinstance(one, Conv1D)) and one is not head]
    linear = sum(int(one.weight.numel()) for one in maps)
    already = next((name for name in ("8bit", "4bit") if stored.get(f"load_in_{name}")), None)
    return Weights(sum(int(weight.numel()) for weight in model.parameters()), linear, already)


def available(device: str) -> int:
    """Bytes that weights may take on this device now."""
    return int(free(device) * SHARE)


def free(device: str) -> int:
    """Bytes that nothing holds on this device now; spread over several, on all GPUs and in main memory."""
    import psutil
    import torch

    main = int(psutil.virtual_memory().available)
    if device == SPREAD:
        return main + sum(int(torch.cuda.mem_get_info(number)[0]) for number in range(torch.cuda.device_count()))
    if device.startswith("cuda") or (device == "auto" and torch.cuda.is_available()):
        return int(torch.cuda.mem_get_info(None if device == "auto" else device)[0])
    return main
