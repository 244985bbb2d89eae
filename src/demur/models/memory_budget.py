"""How much memory there is, and how much of it weights and batches may take."""

from demur.models import cgroups
from demur.models.device_placement import SPREAD

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
    """Bytes that nothing holds on this device now; spread over several, on all GPUs and in main memory.

    Of main memory no more than a container or a scheduler's job leaves to this process.
    """
    import psutil
    import torch

    main, limit = int(psutil.virtual_memory().available), cgroups.left()
    main = main if limit is None else min(main, limit)
    if device == SPREAD:
        return main + sum(_free_on(number) for number in range(torch.cuda.device_count()))
    if device.startswith("cuda") or (device == "auto" and torch.cuda.is_available()):
        return _free_on(None if device == "auto" else device)
    return main


def _free_on(gpu: str | int | None) -> int:
    import torch

    # What torch keeps of earlier batches, to use again, is free for the next.
    kept = torch.cuda.memory_reserved(gpu) - torch.cuda.memory_allocated(gpu)
    return int(torch.cuda.mem_get_info(gpu)[0]) + kept
