"""How much memory there is, and how much of it weights may take."""

BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
SHARE = 0.7
"""Part of the free memory that weights may take; the rest is for activations and the cache of keys and values."""


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
