"""Measures, in under a second, how fast this machine is at large matrix products (as demur does them) and large copies."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch

from demur.models.prepacked_weights import product


@dataclass(frozen=True)
class Rates:
    """The speed of a machine, per second.

    Attributes:
        operations: operations of large matrix products.
        bytes: bytes of large copies, read plus written.
    """

    operations: float
    bytes: float


def measure_rates(dtype: torch.dtype, device: torch.device, seconds: float = 1.0) -> Rates:
    """Measure both rates; each is the best of many repeats.

    Args:
        dtype: the precision of the matrices.
        device: where they are multiplied.
        seconds: about how long each rate is measured. Matrices are as large as this time allows, up to the size of a batch.

    Returns:
        The rates.
    """
    flat = torch.empty(2**27 if device.type == "cpu" else 2**30, dtype=torch.uint8, device=device)
    target = torch.empty_like(flat)
    copies = min(_timed(lambda: target.copy_(flat), device) for _ in _during(seconds))
    return Rates(_products(dtype, device, seconds), 2 * flat.numel() / copies)


def _products(dtype: torch.dtype, device: torch.device, seconds: float) -> float:
    largest = 2048 if device.type == "cpu" else 8192
    best, size, until = 0.0, 128, time.perf_counter() + seconds
    work = _square(size, dtype, device)
    work()  # not timed, because the first product includes one-time setup
    for _ in _during(seconds):
        taken = _timed(work, device)
        best = max(best, 2 * size**3 / taken)
        # The size grows only while there is time: a CPU without instructions for this precision is thousands of times slower.
        if size < largest and time.perf_counter() + 8 * taken < until:
            size *= 2
            work = _square(size, dtype, device)
    return best


def _square(size: int, dtype: torch.dtype, device: torch.device) -> Callable[[], object]:
    states, weight = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    return partial(product(weight), states)


def _during(seconds: float) -> Iterator[None]:
    """Repeat until the time is up, at least once."""
    until = time.perf_counter() + seconds
    yield
    while time.perf_counter() < until:
        yield


def _timed(work: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
