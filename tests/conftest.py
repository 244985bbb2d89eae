"""Everything runs on one torch thread and without a hub."""

import os
from collections.abc import Iterator
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch

from demur.checkpoints import Checkpoint, wrap
from demur.report import style
from tests.tiny import CHAT, tiny_model, tiny_tokenizer

torch.set_num_threads(1)
KINDS = style.KINDS


@pytest.fixture(scope="session", autouse=True)
def figures_once() -> Iterator[None]:
    """Figures as svg alone: png and pdf take half of a tiny run. `every_kind` is for the tests of the files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "KINDS", ("svg",))
        yield


@pytest.fixture
def every_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(style, "KINDS", KINDS)


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
