"""How much memory there is, and how much of it weights and batches may take."""

from demur.placement import SPREAD

BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
SHARE = 0.7
"""Part of the free memory that weights may take; the rest is for activations and the cache of keys and values."""
LEAST_TOKENS = 1024
"""Smallest batch to try, however little memory there is: one that does not fit is halved."""
PASS_TOKENS = {"cpu": 1024, "cuda": 4096}
"""Most tokens of a pass over prompts, padding included. A processor multiplies no faster with more, and what lies between two
products no longer fits into its caches."""
MOST_TOKENS = {"cpu": 16384, "cuda": 131072}
"""Largest batch to decode, new tokens included: behind it a step gains nothing, and a run that is killed loses more."""


def kind_of(device: object) -> str:
    """Whose sizes hold for a device, named or torch's own: `cpu` or `cuda`."""
    return "cuda" if str(device).startswith("cuda") else "cpu"


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
