"""Pauses Python's collection of reference cycles while many objects are made that are in no cycle and live on."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collection_paused() -> Iterator[None]:
    """Inside the block, cycles are not collected.

    The collector looks through all living objects again and again while their number grows. For the summary of 384,000
    completions, that took half of the time. Objects in no cycle are freed as always.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
