"""Everything runs on one torch thread and without a hub."""

import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch

from demur.checkpoints import Checkpoint, wrap
from tests.tiny import CHAT, tiny_model, tiny_tokenizer

torch.set_num_threads(1)

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def checkpoint() -> Checkpoint:
    """A tiny llama with a tokenizer that has a chat template."""
    return wrap(tiny_model("llama"), tiny_tokenizer(chat_template=CHAT), name="tiny")


@pytest.fixture(scope="session")
def smollm() -> Checkpoint:
    """SmolLM2-135M-Instruct, where its package is installed."""
    from demur.checkpoints import load_checkpoint
    from demur.errors import InputError
    from demur.sources import DEMO_MODEL

    try:
        return load_checkpoint(DEMO_MODEL)
    except InputError as error:
        pytest.skip(f"the demo checkpoint is not here: {error}")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference files and instruction sets that are not part of the project."""
    if not (SHARED / "reference").is_dir():
        pytest.skip(f"reference files are not at {SHARED}")
    return SHARED
