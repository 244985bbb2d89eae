"""Traps 23 to 26, as far as they need no real weights: missing hubs, packed files, tokenizers, foreign files."""

import json
import time

import pytest
import torch
from safetensors.torch import save_file

from demur.core.errors import InputError
from demur.models.sources import find_model


def test_trap_23_what_is_missing_is_said_at_once():
    begun = time.monotonic()
    with pytest.raises(InputError, match="owner/no-such-model"):
        find_model("owner/no-such-model")
    assert time.monotonic() - begun < 5


def test_trap_26_remote_code_does_not_run(tmp_path):
    from demur.engine.checkpoints import load_checkpoint

    marker = tmp_path / "ran"
    (tmp_path / "modeling_mine.py").write_text(f"open({str(marker)!r}, 'w').close()\nclass Mine: pass\n")
    (tmp_path / "config.json").write_text(
        json.dumps(
            {"model_type": "mine", "auto_map": dict.fromkeys(("AutoConfig", "AutoModelForCausalLM"), "modeling_mine.Mine")}
        )
    )
    save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError):
        load_checkpoint(str(tmp_path))
    assert not marker.exists()
