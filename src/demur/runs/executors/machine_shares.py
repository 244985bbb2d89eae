"""Shares of this machine: which devices and how many threads each of several worker processes may use."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from demur.core.errors import InputError
from demur.models.device_placement import SPREAD

VISIBLE = "CUDA_VISIBLE_DEVICES"
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Share:
    """What one worker process may use.

    Attributes:
        device: the device on which it loads checkpoints, as it sees it.
        sharing: how many workers share the memory of that device.
        environment: variables that its environment gets before torch is imported there.
    """

    device: str
    sharing: int
    environment: Mapping[str, str]


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, each as `CUDA_VISIBLE_DEVICES` names it."""
    import torch

    count = torch.cuda.device_count()
    named = [name for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    return named[:count] if named else [str(number) for number in range(count)]


def cores() -> int:
    """The CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine_shares(workers: int | None, device: str) -> list[Share]:
    """Divide this machine among workers.

    Each worker has a GPU of its own, or with `spread` an equal number of GPUs. On a CPU, the workers share memory and cores.

    Args:
        workers: how many workers are wanted; None for one on each GPU.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `spread`.

    Returns:
        The share of each worker.

    Raises:
        InputError: for more workers than GPUs, and for a CPU without a number of workers.
    """
    gpus = visible_gpus() if device != "cpu" else []
    if device.startswith("cuda:"):
        gpus = gpus[int(device.partition(":")[2]) :][:1]
    if not gpus:
        if workers is None:
            raise InputError("there is no GPU, so the number of worker processes is not known; give --workers N")
        return [Share("cpu" if device == "auto" else device, workers, _environment(workers, None))] * workers
    count = workers or (1 if device == SPREAD else len(gpus))
    if count > len(gpus):
        raise InputError(f"{count} workers were asked for, but there are {len(gpus)} GPUs for them; ask for at most {len(gpus)}")
    if device == SPREAD:
        each = len(gpus) // count
        return [
            Share(SPREAD, count, _environment(count, ",".join(gpus[number * each : (number + 1) * each])))
            for number in range(count)
        ]
    return [Share("cuda", 1, _environment(count, gpu)) for gpu in gpus[:count]]


def _environment(workers: int, gpus: str | None) -> dict[str, str]:
    """Each worker gets an equal share of the cores, or fewer threads if the user has set fewer.

    Both variables get the same number. With MKL, torch takes the number of MKL, whatever `OMP_NUM_THREADS` says: a user who had
    set that to 1 got as many threads as the share.
    """
    asked = [int(text) for name in _THREADS if (text := os.environ.get(name, "")).isdecimal()]
    threads = max(1, min([cores() // workers, *asked]))
    found = {name: str(threads) for name in _THREADS}
    return found if gpus is None else {**found, VISIBLE: gpus}
