"""Freed memory goes back to the system, and batches keep to a limit of the memory."""

import subprocess
import sys

import pytest

from demur.models import freed_memory, memory_budget

WORK = """
import contextlib, sys
from pathlib import Path
from demur.models.freed_memory import returned_at_once

def resident():
    return 4096 * int(Path("/proc/self/statm").read_text().split()[1]) // 2**20

first = bytearray(30 * 2**20)
del first  # raises the threshold of the C library
before = resident()
with returned_at_once() if sys.argv[1] == "at once" else contextlib.nullcontext():
    pieces = []
    for _ in range(50):
        pieces += [bytearray(4 * 2**20), bytearray(200_000)]
    most = resident() - before
    del pieces[::2]
    print(most, resident() - before)
"""


@pytest.mark.skipif(freed_memory._c_library() is None, reason="the C library keeps no freed memory, or has no such setting")
def test_large_blocks_are_returned_at_once_though_others_are_still_used():
    found = {}
    for how in ("at once", "later"):
        done = subprocess.run([sys.executable, "-c", WORK, how], check=True, capture_output=True, text=True)
        found[how] = [int(part) for part in done.stdout.split()]
    assert min(most for most, _ in found.values()) > 190
    assert found["at once"][1] < 30
    assert found["later"][1] > 150


def test_a_threshold_of_the_user_stays(monkeypatch):
    called = []
    monkeypatch.setattr(freed_memory, "_c_library", lambda: called.append(1))
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")
    with freed_memory.returned_at_once():
        assert not called


def test_batches_keep_to_a_limit_of_the_memory():
    free = memory_budget.free("cpu")
    assert free > 2**20
    with memory_budget.limited(3000):
        assert memory_budget.free("cpu") == 3000
        assert memory_budget.fitting(100, "cpu", 64) == 10
        assert memory_budget.fitting(100, "cpu", 8) == 8
        assert memory_budget.fitting(10_000, "cpu", 8) == 1
        with memory_budget.limited(300):
            assert memory_budget.free("cpu") == 300
        assert memory_budget.free("cpu") == 3000
    assert memory_budget.free("cpu") > 2**20
    assert memory_budget.fitting(2**10, "cpu", 64) == 64
