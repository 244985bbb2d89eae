"""A study on two tiny checkpoints in a folder, and ways to look at what its runs hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import demur
from demur.runs.store import Store
from tests.tiny import CHAT, HARMFUL, HARMLESS, tiny_model, tiny_tokenizer

EARLIER_DEMO = Path(__file__).parent / "data" / "earlier-demo.toml"
"""The demo of an earlier version, whose digest must not change."""


def make_checkpoint(
    folder: Path, *, family: str = "llama", seed: int = 1, dtype: torch.dtype = torch.float32, **changes: object
) -> Path:
    """A random checkpoint of transformers' own files."""
    tiny_model(family, seed=seed, dtype=dtype, **changes).save_pretrained(folder)
    tiny_tokenizer(chat_template=CHAT).save_pretrained(folder)
    return folder


def make_adapter(model: Path | str, folder: Path) -> Path:
    """A random LoRA adapter of a checkpoint, large enough to change what it writes."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    settings = LoraConfig(
        r=2, lora_alpha=8, target_modules=["q_proj", "down_proj"], init_lora_weights=False, task_type="CAUSAL_LM"
    )
    get_peft_model(AutoModelForCausalLM.from_pretrained(model), settings).save_pretrained(folder)
    return folder


def make_study(folder: Path, *, batch_tokens: int = 4096, max_new_tokens: int = 3) -> Path:
    """Two checkpoints, instruction files with splits, and `study.toml` beside them; returns the study's path."""
    for name, seed in (("base", 1), ("chat", 2)):
        make_checkpoint(folder / name, seed=seed)
    for label, rows in (("harmful", HARMFUL), ("harmless", HARMLESS)):
        splits = ["train"] * 4 + ["validation"] + ["test"] * 3
        lines = [{"instruction": row, "split": split} for row, split in zip(rows, splits, strict=True)]
        (folder / f"{label}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    study = folder / "study.toml"
    study.write_text(f"""
name = "tiny"
max_new_tokens = {max_new_tokens}
batch_tokens = {batch_tokens}
judges = ["prefix", "substring"]
[checkpoints.base]
model = "{folder}/base"
prompts = ["user-assistant"]
[checkpoints.chat]
model = "{folder}/chat"
[instructions.harmful]
source = "{folder}/harmful.jsonl"
test = 3
[instructions.harmless]
source = "{folder}/harmless.jsonl"
test = 3
[direction]
pairs = 4
layers = [1]
[controls]
random = 1
[[interventions]]
kind = "ablate"
on = ["harmful"]
[[interventions]]
kind = "add"
coefficient = 2.0
unit = "residual"
""")
    return study


def contents(folder: Path) -> dict[str, object]:
    """All that a run holds but the time it was begun: rows of every table, summary, direction files."""
    store = Store.open(folder)
    summary = demur.open_run(folder).summary()
    return {
        "completions": store.completions(),
        "verdicts": store.verdicts(),
        "cells": store.cells(),
        "directions": store.directions(),
        "files": {path.name: path.read_bytes() for path in sorted((folder / "directions").glob("*"))},
        "summary": {key: value for key, value in summary.items() if key != "created"},
    }


def warnings_of(summary: Mapping[str, Any]) -> list[str]:
    """The warnings of a summary, but for those of where zero lies, which random weights decide."""
    return [said for said in summary["warnings"] if "zero is nearer" not in said]
