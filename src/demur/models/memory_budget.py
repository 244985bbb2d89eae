"""The free memory, and how much of it weights and batches may use."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from demur.models import cgroups
from demur.models.device_placement import SPREAD

BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
SHARE = 0.7
"""The part of the free memory that weights may use. The rest is for activations and the KV cache."""
LEAST_TOKENS = 1024
"""The first batch has at least this many tokens, however little memory is free. A batch that does not fit is halved."""
PASS_TOKENS = {"cpu": 1024, "cuda": 4096}
"""The most tokens in one prefill pass, including padding. A CPU is no faster with more, because the intermediate results then
exceed its caches."""
MOST_TOKENS = {"cpu": 16384, "cuda": 131072}
"""The most tokens in a batch to decode, including new tokens. Larger batches are no faster, and a killed run loses more work."""


def kind_of(device: object) -> str:
    """`cpu` or `cuda`, the keys of the sizes above, for a device or its name."""
    return "cuda" if str(device).startswith("cuda") else "cpu"


_sharing = 1
"""How many processes share the memory of this one."""


def share(processes: int) -> None:
    """Leave most of the free main memory, and of the GPU's, to other processes that do the same work at the same time.

    Args:
        processes: how many there are, this one included.
    """
    global _sharing
    _sharing = processes


_most: ContextVar[int | None] = ContextVar("_most", default=None)


@contextmanager
def limited(most: int) -> Iterator[None]:
    """Inside, batches and prepacked weights count at most this many bytes as free.

    Args:
        most: the bytes.
    """
    before = _most.set(most)
    try:
        yield
    finally:
        _most.reset(before)


def available(device: str) -> int:
    """Bytes that weights may use on this device now."""
    return int(free(device) * SHARE)


def free(device: str) -> int:
    """Free bytes on this device now; for `spread`, on all GPUs and in main memory together.

    Main memory counts only up to the limit of a container or of a scheduler's job. If several processes share the memory, it is
    this process's part. It is at most what `limited` says.
    """
    found, most = _free(device) // _sharing, _most.get()
    return found if most is None else min(found, most)


def fitting(each: int, device: str, most: int) -> int:
    """How many tokens or rows, of so many bytes each, fill a third of the free memory: at least 1, at most `most`."""
    return max(1, min(most, free(device) // 3 // each))


def _free(device: str) -> int:
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

    # Memory that torch has reserved but does not use is free for the next batch.
    kept = torch.cuda.memory_reserved(gpu) - torch.cuda.memory_allocated(gpu)
    return int(torch.cuda.mem_get_info(gpu)[0]) + kept
