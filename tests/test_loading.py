"""Files of checkpoints: what the hub's cache holds is found again, and what would be lost or merged twice is not."""

import errno
import json
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

import demur
from demur.core.errors import InputError, WorkError
from demur.engine import load_transformers
from demur.models import gguf_files
from demur.models.sources import find_model
from demur.models.third_party_logs import quiet_transformers
from tests.tiny import tiny_model, tiny_tokenizer
from tests.tiny_study import make_checkpoint

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """A snapshot as demur fetches it, in a cache whose listing of the repository names more files than these."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("demur.core.network.reachable", lambda: False)
    storage = tmp_path / "models--owner--name"
    snapshot = make_checkpoint(storage / "snapshots" / COMMIT)
    (storage / "refs").mkdir()
    (storage / "refs" / "main").write_text(COMMIT)
    list_files(storage, [*(path.name for path in snapshot.iterdir()), ".gitattributes", "README.md", "onnx/config.json"])
    return snapshot


def list_files(storage, names):
    (storage / "trees").mkdir(exist_ok=True)
    listing = {"format_version": 1, "files": {name: {"size": 1, "blob_id": "0" * 40} for name in names}}
    (storage / "trees" / f"{COMMIT}.json").write_text(json.dumps(listing))


@pytest.mark.parametrize("reference", ["owner/name", "owner/name@main", f"owner/name@{COMMIT}"])
def test_what_demur_fetched_is_found_without_a_hub_and_its_commit_is_recorded(cached, reference):
    source = find_model(reference)
    assert (source.kind, source.path, source.revision) == ("folder", cached, COMMIT)
    assert source.describe() == f"owner/name@{COMMIT}"


def test_a_snapshot_without_a_list_of_its_files_is_found_by_its_weights(cached):
    (cached.parents[1] / "trees" / f"{COMMIT}.json").unlink()
    assert find_model("owner/name").path == cached
    (cached / "model.safetensors").unlink()
    with pytest.raises(InputError, match="no model hub can be reached"):
        find_model("owner/name")


def test_a_snapshot_that_lacks_its_tokenizer_is_fetched_again(cached):
    (cached / "tokenizer.json").unlink()
    with pytest.raises(InputError, match="no model hub can be reached"):
        find_model("owner/name")


def test_an_index_of_weights_that_are_not_used_does_not_count(cached):
    (cached / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"a": "pytorch_model-00001-of-00002.bin"}}))
    assert find_model("owner/name").path == cached


def test_a_snapshot_that_lacks_a_shard_is_not_whole(cached):
    weights = cached / "model.safetensors"
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (cached / "model.safetensors.index.json").write_text(json.dumps(index))
    names = {path.name for path in cached.iterdir()} - {"model.safetensors"}
    list_files(cached.parents[1], [*names, *index["weight_map"].values()])
    weights.rename(cached / "model-00001-of-00002.safetensors")
    with pytest.raises(InputError, match="no model hub can be reached"):
        find_model("owner/name")
    (cached / "model-00002-of-00002.safetensors").write_bytes((cached / "model-00001-of-00002.safetensors").read_bytes())
    assert find_model("owner/name").path == cached


@pytest.mark.parametrize(
    ("name", "refused"), [("self_attn.q_proj.bias", True), ("self_attn.bias", False), ("rotary.inv_freq", False)]
)
def test_left_over_weights_of_any_name_are_refused_and_old_buffers_are_not(tmp_path, name, refused):
    folder = make_checkpoint(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, f"model.layers.1.{name}": torch.ones(4)}, folder / "model.safetensors", {"format": "pt"})
    if refused:
        with pytest.raises(InputError, match=rf"config does not describe, such as 'model.layers.1.{name}'"):
            demur.load_checkpoint(folder)
    else:
        demur.load_checkpoint(folder)


@pytest.mark.parametrize("target", ["embed_tokens", "lm_head"])
def test_an_adapter_of_one_end_of_tied_embeddings_is_merged_into_that_end(tmp_path, target):
    from peft import LoraConfig, PeftModel, get_peft_model

    folder = make_checkpoint(tmp_path / "tied", tie_word_embeddings=True)
    torch.manual_seed(0)
    settings = LoraConfig(r=2, lora_alpha=8, target_modules=[target, "q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(folder), settings).save_pretrained(tmp_path / "adapter")
    ids = torch.tensor([[1, 5, 9, 11]])
    with torch.no_grad():
        beside = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), tmp_path / "adapter").eval()
        expected = beside(ids).logits
        plain = AutoModelForCausalLM.from_pretrained(folder).eval()(ids).logits
        merged = demur.load_checkpoint(folder, adapter=tmp_path / "adapter").model(ids).logits
    assert (expected - plain).abs().max() > 0.01
    torch.testing.assert_close(merged, expected, atol=1e-5, rtol=1e-4)


def test_a_gguf_file_whose_middle_was_edited_is_another_file(tmp_path):
    path = tmp_path / "model.gguf"
    content = bytearray(b"GGUF" + bytes(64 << 20))
    path.write_bytes(content)
    before = gguf_files.converted_folder(path)
    # One matrix of a MiB and a little, away from both ends.
    content[30_000_000:31_060_000] = b"\x01" * 1_060_000
    path.write_bytes(content)
    assert gguf_files.converted_folder(path) != before


def test_what_libraries_advise_while_weights_are_read_is_not_shown(caplog, monkeypatch):
    said = logging.getLogger("bitsandbytes.backends.cpu.ops")
    # The package may have set these when another test imported it.
    for logger in (said, *map(logging.getLogger, ("bitsandbytes", "bitsandbytes.backends", "bitsandbytes.backends.cpu"))):
        for name, value in (("level", logging.NOTSET), ("propagate", True), ("disabled", False)):
            monkeypatch.setattr(logger, name, value)
        logger.manager._clear_cache()
    with caplog.at_level(logging.WARNING):
        with quiet_transformers():
            said.warning("of kernels")
        assert not caplog.records
        said.warning("afterwards")
    assert [record.getMessage() for record in caplog.records] == ["afterwards"]


def test_threads_that_load_at_once_leave_transformers_as_it_was(tmp_path, monkeypatch):
    folder = make_checkpoint(tmp_path / "tied", tie_word_embeddings=True)
    before = PreTrainedModel.tie_weights, torch.get_default_dtype()
    real, inside, most = load_transformers.load, [], []

    def slow(*given):
        inside.append(1)
        most.append(len(inside))
        Event().wait(0.05)
        try:
            return real(*given)
        finally:
            inside.pop()

    monkeypatch.setattr(load_transformers, "load", slow)
    with ThreadPoolExecutor(4) as pool:
        loaded = list(pool.map(lambda dtype: demur.load_checkpoint(folder, dtype=dtype).model, ["bfloat16", "float32"] * 4))
    assert [model.lm_head.weight.dtype for model in loaded] == [torch.bfloat16, torch.float32] * 4
    assert all(model.lm_head.weight is model.get_input_embeddings().weight for model in loaded)
    assert (PreTrainedModel.tie_weights, torch.get_default_dtype()) == before
    assert most == [1] * 8


@pytest.fixture
def converting(tmp_path, monkeypatch):
    """A GGUF file that stands for a tiny model, and the cache folder that it is converted into."""
    file = tmp_path / "small.gguf"
    file.write_bytes(b"GGUF" + bytes(100))
    monkeypatch.setenv("DEMUR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(gguf_files, "_converted", lambda _: (tiny_model("llama"), tiny_tokenizer()))
    return file, tmp_path / "cache" / "gguf"


def test_a_conversion_that_fails_leaves_nothing(converting, monkeypatch):
    file, cache = converting

    def full(self, folder, **_):
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(PreTrainedModel, "save_pretrained", full)
        with pytest.raises(WorkError, match="free some space"):
            gguf_files.convert(file)
    assert list(cache.iterdir()) == []
    assert (gguf_files.convert(file) / "config.json").is_file()
    assert len(list(cache.iterdir())) == 1


def test_what_a_killed_conversion_left_is_taken_away_after_a_day(converting):
    file, cache = converting
    for name, age in (("old", 90000), ("new", 60)):
        left = cache / f"other{gguf_files.PARTIAL}{name}"
        left.mkdir(parents=True)
        (left / "model.safetensors").write_bytes(b"half")
        os.utime(left, (time.time() - age,) * 2)
    made = gguf_files.convert(file)
    assert {one.name for one in cache.iterdir()} == {made.name, f"other{gguf_files.PARTIAL}new"}


def test_weights_that_do_not_fit_on_the_device_are_one_sentence(tmp_path, monkeypatch):
    folder = make_checkpoint(tmp_path)

    def full(self, *_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(PreTrainedModel, "to", full)
    with pytest.raises(WorkError, match="do not fit into memory; use dtype bfloat16, quantise"):
        demur.load_checkpoint(str(folder))
