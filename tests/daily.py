"""Which families a test of every family runs on each time; on the others it runs with the long tests."""

from collections.abc import Sequence
from typing import Any

import pytest

DAILY = (
    "bloom", "falcon", "gemma2", "glm4", "gpt2", "gpt_neox", "gpt_oss", "gptj", "llama", "mpt", "olmo2", "opt-projected",
    "qwen3_moe", "gemma3", "mllama", "qwen2_vl",
)  # fmt: skip
"""One family of each kind of block, cache, positions and tower."""


def daily(families: Sequence[str]) -> list[Any]:
    """The families as parameters of a test. Those that are not among `DAILY` are marked as soak."""
    return [family if family in DAILY else pytest.param(family, marks=pytest.mark.soak) for family in families]
