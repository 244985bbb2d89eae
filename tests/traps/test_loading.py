"""Traps 23 to 26, as far as they need no real weights: missing hubs, packed files, tokenizers, foreign files."""

import json
import pickle
import time

import pytest
import torch
from safetensors.torch import save_file

from demur.directions import load_direction
from demur.errors import InputError
from demur.sources import find_model


def test_trap_23_what_is_missing_is_said_at_once():
    begun = time.monotonic()
    with pytest.raises(InputError, match="owner/no-such-model"):
        find_model("owner/no-such-model")
    assert time.monotonic() - begun < 5


def test_trap_26_remote_code_does_not_run(tmp_path):
    from demur.checkpoints import load_checkpoint

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


def test_trap_26_foreign_files_are_data(tmp_path):
    bare = torch.randn(8, dtype=torch.float16)
    torch.save(bare, tmp_path / "bare.pt")
    found = load_direction(tmp_path / "bare.pt")
    assert torch.allclose(found.vector * found.raw_norm, bare.float(), atol=1e-3)

    class Hostile:
        def __reduce__(self):
            return (print, ("never",))

    (tmp_path / "hostile.pt").write_bytes(pickle.dumps(Hostile()))
    torch.save({"a": bare}, tmp_path / "dict.pt")
    torch.save(torch.randn(3, 8), tmp_path / "matrix.pt")
    torch.save(torch.zeros(8), tmp_path / "zero.pt")
    save_file({"other": bare}, tmp_path / "other.safetensors")
    (tmp_path / "text.safetensors").write_text("no")
    header = {"demur": json.dumps({"format": "demur-direction-9", "site": "resid_pre"})}
    save_file({"direction": bare}, tmp_path / "newer.safetensors", metadata=header)
    for name, message in {
        "hostile.pt": "cannot be read as plain tensors",
        "dict.pt": "holds a dict",
        "matrix.pt": "one vector",
        "zero.pt": "zero or not finite",
        "other.safetensors": "holds other",
        "text.safetensors": "not a safetensors file",
        "newer.safetensors": "demur-direction-9",
        "missing.safetensors": "there is no direction file",
    }.items():
        with pytest.raises(InputError, match=message):
            load_direction(tmp_path / name)
