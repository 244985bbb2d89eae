"""Weights spread over several devices by accelerate: the same rows, fingerprints and directions as on one, token for token."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import cpu_offload, disk_offload
from typer.testing import CliRunner

import demur
from demur.cli.doctor_lines import doctor_lines
from demur.cli.main import app
from demur.core.errors import InputError
from demur.engine.checkpoints import load_checkpoint
from demur.engine.diagnosis import diagnosis
from demur.models import memory_budget, prepacked_weights
from demur.models.device_placement import SPREAD, bytes_by_device, find_device, input_device
from tests.tiny import HARMFUL, HARMLESS, tiny_model
from tests.tiny_study import contents, make_adapter, make_checkpoint, make_study

ROOT = Path(__file__).parents[1]
HALF = {"cpu": "70KB"}
"""About half of a tiny checkpoint; the rest goes to the disk."""


def works(checkpoint):
    """A direction, and tokens under edits."""
    prompt = demur.prompt_format("native", checkpoint)
    direction = demur.extract_direction(checkpoint, HARMFUL, HARMLESS, prompt, layer=1)
    edits = [None, demur.add(direction, 2.0, unit="raw"), demur.ablate(direction)]
    rows = demur.generate(checkpoint, HARMFUL, prompt, edits, max_new_tokens=6)
    losses = demur.text_losses(checkpoint, HARMLESS, edits)
    return direction, [[row.token_ids for row in edited] for edited in rows], losses


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "gpt_neox", "opt", "qwen2_moe"])
def test_weights_on_the_disk_give_the_same_rows(family, tmp_path, monkeypatch):
    folder = str(make_checkpoint(tmp_path / "model", family=family, seed=1))
    one, spread = load_checkpoint(folder), load_checkpoint(folder, device=SPREAD, max_memory=HALF)
    assert set(bytes_by_device(one.model)) == {"cpu"}
    assert "disk" in bytes_by_device(spread.model), spread.model.hf_device_map
    assert any(weight.device.type == "meta" for weight in spread.model.parameters())
    assert spread.fingerprint == one.fingerprint
    assert (spread.device, spread.dtype) == (one.device, one.dtype)
    # Weights that move about are not packed, and packed ones round otherwise: the same tokens, and without them the same bits.
    assert works(one)[1] == works(spread)[1]
    monkeypatch.setattr(prepacked_weights, "can_prepack", lambda dtype: False)
    (direction, tokens, losses), (others, other_tokens, other_losses) = works(one), works(spread)
    assert other_tokens == tokens
    assert other_losses == losses
    assert torch.equal(direction.vector, others.vector)
    assert len({str(row) for row in tokens}) == 3, "the edits act"


def test_some_weights_stay_in_memory(tmp_path):
    folder = str(make_checkpoint(tmp_path / "model", seed=1, num_hidden_layers=8))
    spread = load_checkpoint(folder, device=SPREAD, max_memory=HALF)
    assert set(bytes_by_device(spread.model)) == {"cpu", "disk"}
    assert spread.facts["device"] == "cpu, disk"
    assert sum(bytes_by_device(spread.model).values()) == sum(bytes_by_device(load_checkpoint(folder).model).values())
    assert works(spread)[1] == works(load_checkpoint(folder))[1]
    lines = dict(line.split(maxsplit=1) for line in doctor_lines(diagnosis(spread)))
    assert lines["device"] == "cpu takes the input; weights are on cpu, disk"
    assert "of weights on" in lines["memory"]


def test_an_adapter_is_merged_before_weights_are_spread(tmp_path):
    folder = str(make_checkpoint(tmp_path / "model", seed=1))
    adapter = str(make_adapter(folder, tmp_path / "adapter"))
    one = load_checkpoint(folder, adapter=adapter)
    spread = load_checkpoint(folder, adapter=adapter, device=SPREAD, max_memory=HALF)
    assert "disk" in bytes_by_device(spread.model)
    assert spread.fingerprint == one.fingerprint != load_checkpoint(folder).fingerprint
    assert works(spread)[1] == works(one)[1]


def test_what_is_on_the_disk_goes_with_its_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = str(make_checkpoint(tmp_path / "model", seed=1))
    adapter = str(make_adapter(folder, tmp_path / "adapter"))
    spread = load_checkpoint(folder, adapter=adapter, device=SPREAD, max_memory=HALF)
    (held,) = tmp_path.glob("demur-offload-*")
    assert any(held.iterdir())
    assert spread.model.offload_folder.name == str(held)
    del spread
    demur.models.freed_memory.free_memory()
    assert not list(tmp_path.glob("demur-offload-*"))


@pytest.mark.parametrize("offload", [cpu_offload, disk_offload])
def test_steer_on_a_model_that_its_user_offloaded(offload, tmp_path):
    direction = demur.from_raw(torch.arange(1.0, 33.0), name="d", layer=1)
    ids = torch.tensor([[5, 6, 7]])

    def steered(model):
        with demur.steer(model, demur.add(direction, 20.0), demur.ablate(direction, layers=[2])):
            return model.generate(ids, max_new_tokens=6, do_sample=False).tolist()

    plain, model = steered(tiny_model("llama")), tiny_model("llama")
    arguments = {"execution_device": torch.device("cpu")} | ({"offload_dir": tmp_path} if offload is disk_offload else {})
    offload(model, **arguments)
    assert next(model.parameters()).device.type == "meta"
    assert input_device(model) == torch.device("cpu")
    assert steered(model) == plain != tiny_model("llama").generate(ids, max_new_tokens=6, do_sample=False).tolist()


@pytest.mark.soak
def test_blocks_on_two_devices_compute_what_one_does():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    done = subprocess.run(
        [sys.executable, "-m", "tests.two_devices"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert set(found["one"]) == {"llama", "gemma2", "gpt_neox", "granite"}
    for family, one in found["one"].items():
        two = found["two"][family]
        assert found["devices"][family] == ["pretend:0", "pretend:1"]
        for what in ("tokens", "following", "activations", "proof", "steered"):
            assert two[what] == one[what], f"{what} of {family}"
        assert two["losses"] == {row: pytest.approx(losses, abs=1e-5) for row, losses in one["losses"].items()}


def test_a_study_spread_ends_as_on_one_device(tmp_path):
    study = make_study(tmp_path / "files")
    for name in ("cpu", SPREAD):
        result = CliRunner().invoke(app, ["run", str(study), "--out", str(tmp_path / name), "--device", name, "-q"])
        assert result.exit_code == 0, result.output
    assert contents(tmp_path / SPREAD)["completions"] == contents(tmp_path / "cpu")["completions"]


def test_devices_by_name():
    assert find_device(SPREAD) is None
    assert find_device("cpu") == torch.device("cpu")
    assert memory_budget.free(SPREAD) > 0
    with pytest.raises(InputError, match="try auto, cpu, cuda, cuda:0 or spread"):
        find_device("sprad")


def test_a_weight_edit_of_spread_weights_is_refused(tmp_path):
    folder = str(make_checkpoint(tmp_path / "model", seed=1))
    spread = load_checkpoint(folder, device=SPREAD, max_memory=HALF)
    with pytest.raises(InputError, match="spread over several devices"):
        demur.equivalence(spread, demur.from_raw(torch.ones(32), name="d", layer=1))
