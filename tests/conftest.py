"""Everything runs on one torch thread and without a hub."""

import gc
import json
import os
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
from jsonschema import Draft202012Validator
from matplotlib.figure import Figure

from demur.analysis.summary import Summary
from demur.engine.checkpoints import Checkpoint, wrap
from demur.report import draw_static, style
from demur.runs import run as run_module
from demur.runs import run_summary
from tests.report.chromium import CHROMIUM, started
from tests.tiny import CHAT, tiny_model, tiny_tokenizer

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from demur.runs.store import Store
    from demur.runs.stored_records import Results

torch.set_num_threads(1)
collect_ignore = ["two_devices.py"]  # changes torch when it is imported; a test runs it in a process of its own
KINDS, SAVE, DRAW = style.KINDS, style.save, draw_static.draw


def pytest_collection_finish() -> None:
    """What was imported stays: freeing a model's memory, which every run does, need not look through it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def blank_figures() -> Iterator[None]:
    """Figures are neither drawn nor rendered, two thirds of a tiny run, but where a test asks for `drawn_for_real`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "KINDS", ("svg",))
        patch.setattr(style, "save", lambda figure, kind: b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"/>')
        patch.setattr(draw_static, "draw", lambda content: Figure())
        yield


@pytest.fixture(scope="session", autouse=True)
def valid_summaries() -> Iterator[None]:
    """Every summary that a test makes, typed or as plain data, is held to the JSON Schema that ships with the package."""
    schema = json.loads((resources.files("demur") / "data" / "summary.schema.json").read_text(encoding="utf-8"))
    check = Draft202012Validator(schema).validate
    summarise = run_summary.summarise

    def checked(store: "Store", judges: Sequence[str], results: "Results") -> Summary:
        made = summarise(store, judges, results)
        check(json.loads(made.to_json()))
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "summarise", checked)
        yield


SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def checkpoint() -> Checkpoint:
    """A tiny llama with a tokenizer that has a chat template."""
    return wrap(tiny_model("llama"), tiny_tokenizer(chat_template=CHAT), name="tiny")


@pytest.fixture(scope="session")
def smollm() -> Checkpoint:
    """SmolLM2-135M-Instruct, where its package is installed."""
    from demur.core.errors import InputError
    from demur.engine.checkpoints import load_checkpoint
    from demur.models.sources import DEMO_MODEL

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


@pytest.fixture(scope="session")
def browser() -> Iterator["Browser"]:
    """One browser for all tests of a process: Playwright cannot be started twice at once."""
    if CHROMIUM is None:
        pytest.skip("needs a Chromium: scripts/install_chromium.sh installs Debian's")
    with started() as chromium:
        yield chromium
