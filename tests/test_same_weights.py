"""A run goes on only with the weights that it began with: every byte counts, and a download is what the hub describes."""

import hashlib
import json
import os
import shutil
import sqlite3
import struct
import time
from contextlib import closing

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import demur
from demur.cli.main import app
from demur.core.errors import InputError
from demur.core.same_weights import same_weights
from demur.models import file_digests, gguf_files
from demur.runs import driver
from demur.runs.records import CompletionsMade
from tests.tiny import CHAT, tiny_model, tiny_tokenizer
from tests.tiny_study import make_adapter, make_checkpoint, make_study


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DEMUR_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    return make_checkpoint(tmp_path / "model")


def changed(folder, change, name="model.safetensors"):
    """Change tensors of a file so that no sampled entry is another one."""
    tensors = load_file(folder / name)
    change(tensors)
    save_file(tensors, folder / name, metadata={"format": "pt"})


def row(tensors, key="model.embed_tokens.weight"):
    sampled = {index * (tensors[key].numel() - 1) // 63 for index in range(64)}
    free = next(index for index in range(tensors[key].numel()) if index not in sampled)
    tensors[key].view(-1)[free] += 1


def flipped(file, at=-3):
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


def killed_after(study, out, monkeypatch, batches=1):
    made = []

    def commit(record, store, real=driver.commit):
        real(record, store)
        made.append(record)
        if sum(isinstance(one, CompletionsMade) for one in made) == batches:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(driver, "commit", commit)
        with pytest.raises(KeyboardInterrupt):
            demur.run(study, out)


def test_a_run_whose_embedding_rows_were_replaced_is_refused(tmp_path, monkeypatch):
    study = demur.load_study(make_study(tmp_path, batch_tokens=64))
    killed_after(study, tmp_path / "run", monkeypatch)
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    whole = (tmp_path / "base" / "model.safetensors").read_bytes()
    changed(tmp_path / "base", row)
    with pytest.raises(InputError, match="the weights of 'base' are not those this run began with"):
        demur.run(study, tmp_path / "run")
    (tmp_path / "base" / "model.safetensors").write_bytes(whole)
    demur.run(study, tmp_path / "run").close()


def test_a_run_of_an_earlier_version_goes_on_by_the_earlier_rule_and_stores_the_new_one(tmp_path, monkeypatch):
    study = demur.load_study(make_study(tmp_path, batch_tokens=64))
    killed_after(study, tmp_path / "run", monkeypatch)
    with closing(sqlite3.connect(tmp_path / "run" / "run.sqlite")) as db:
        text = db.execute("SELECT value FROM meta WHERE key = 'checkpoints'").fetchone()[0]
        facts = json.loads(text)
        for each in facts.values():
            each["fingerprint"] = each["fingerprint"].partition("-")[0]
        db.execute("UPDATE meta SET value = ? WHERE key = 'checkpoints'", (json.dumps(facts),))
        db.commit()
    with demur.run(study, tmp_path / "run") as run:
        found = {name: each.fingerprint for name, each in run.manifest().checkpoints.items()}
    assert {name: demur.load_checkpoint(tmp_path / name).fingerprint for name in ("base", "chat")} == found


def test_the_fingerprint_covers_every_entry_of_files_and_of_weights_in_memory(folder, tmp_path):
    first = demur.load_checkpoint(folder).fingerprint
    shutil.copytree(folder, tmp_path / "copy")
    assert demur.load_checkpoint(tmp_path / "copy").fingerprint == first
    changed(folder, row)
    second = demur.load_checkpoint(folder).fingerprint
    assert first.partition("-")[0] == second.partition("-")[0], "the sampled part does not see it"
    assert not same_weights(first, second)
    for dtype in (torch.float32, torch.bfloat16):
        one = demur.wrap(tiny_model("llama", dtype=dtype), tiny_tokenizer(chat_template=CHAT)).fingerprint
        other = tiny_model("llama", dtype=dtype)
        assert demur.wrap(other, tiny_tokenizer(chat_template=CHAT)).fingerprint == one
        row(other.state_dict())
        assert not same_weights(demur.wrap(other, tiny_tokenizer(chat_template=CHAT)).fingerprint, one)


def test_the_fingerprint_covers_every_entry_of_an_adapter(folder, tmp_path):
    adapter = make_adapter(folder, tmp_path / "adapter")
    first = demur.load_checkpoint(folder, adapter=adapter).fingerprint
    # A change that is lost where the adapter is merged in float32 is another adapter all the same.
    flipped(adapter / "adapter_model.safetensors", at=-4)
    assert demur.load_checkpoint(folder, adapter=adapter).fingerprint != first


def test_a_digest_is_kept_as_long_as_the_file_is_the_same(folder, monkeypatch):
    file = folder / "model.safetensors"
    before = time.time_ns() - 10_000_000_000
    os.utime(file, ns=(before, before))
    monkeypatch.setattr(file_digests, "_TICK", 0)
    first = file_digests.sha256_of(file)
    assert first == hashlib.sha256(file.read_bytes()).hexdigest()

    def hashed(*_):
        raise AssertionError("the file is hashed again")

    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "file_digest", hashed)
        assert file_digests.sha256_of(file) == first
    # The same size and time of writing, as a copying program may set them.
    flipped(file)
    os.utime(file, ns=(before, before))
    assert file_digests.sha256_of(file) == hashlib.sha256(file.read_bytes()).hexdigest() != first


def test_a_file_that_was_just_written_is_not_kept(folder, tmp_path):
    file_digests.sha256_of(folder / "model.safetensors")
    assert not (tmp_path / "cache" / "digests").exists()


def in_hub_cache(folder, hub, name="models--owner--tiny"):
    """The folder as huggingface_hub keeps a download: blobs named by their digests, and a snapshot of links."""
    blobs, snapshot = hub / name / "blobs", hub / name / "snapshots" / ("0" * 40)
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    (hub / name / "refs").mkdir()
    (hub / name / "refs" / "main").write_text("0" * 40)
    for file in folder.iterdir():
        content = file.read_bytes()
        git = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
        digest = hashlib.sha256(content).hexdigest() if file.suffix == ".safetensors" else git
        (blobs / digest).write_bytes(content)
        (snapshot / file.name).symlink_to(f"../../blobs/{digest}")
    return snapshot


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_flipped_byte_in_a_download_is_refused(folder, tmp_path, monkeypatch, name):
    snapshot = in_hub_cache(folder, tmp_path / "hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert demur.load_checkpoint("owner/tiny").fingerprint == demur.load_checkpoint(folder).fingerprint
    blob = (snapshot / name).resolve()
    content = blob.read_bytes()
    # A space for a line end keeps JSON what it is; in the weights the last byte changes.
    blob.write_bytes(content.replace(b"\n", b" ", 1) if name.endswith("json") else content[:-1] + bytes([content[-1] ^ 1]))
    result = CliRunner().invoke(app, ["doctor", "--model", "owner/tiny"])
    assert result.exit_code == 2
    assert f"the file '{name}' of 'owner/tiny' is not the one that the hub describes" in result.stderr
    assert f"delete '{blob}' and fetch it again" in result.stderr


def test_a_flipped_byte_in_a_downloaded_adapter_is_refused(folder, tmp_path, monkeypatch):
    snapshot = in_hub_cache(make_adapter(folder, tmp_path / "adapter"), tmp_path / "hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    demur.load_checkpoint(folder, adapter="owner/tiny")
    flipped((snapshot / "adapter_model.safetensors").resolve())
    with pytest.raises(InputError, match=r"the file 'adapter_model.safetensors' of 'owner/tiny' is not the one"):
        demur.load_checkpoint(folder, adapter="owner/tiny")


def test_only_files_that_are_read_are_hashed(folder, tmp_path, monkeypatch):
    """Models on the hub often hold their weights a second time, in `consolidated.safetensors`, which no one here reads."""
    for name in ("consolidated.safetensors", "model.fp16.safetensors"):
        (folder / name).write_bytes((folder / "model.safetensors").read_bytes() + b"x")
    (folder / "adapter_model.safetensors").write_bytes(b"of another program")
    snapshot = in_hub_cache(folder, tmp_path / "hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    hashed, digest = set(), file_digests._digest
    monkeypatch.setattr(file_digests, "_digest", lambda file, how: hashed.add(file.resolve()) or digest(file, how))
    made = demur.load_checkpoint("owner/tiny")
    others = ("consolidated.safetensors", "model.fp16.safetensors", "adapter_model.safetensors")
    unread = {(snapshot / name).resolve() for name in others}
    assert hashed == {file.resolve() for file in snapshot.iterdir()} - unread
    # A byte of a file that is not read may change.
    flipped((snapshot / "consolidated.safetensors").resolve())
    assert demur.load_checkpoint("owner/tiny").fingerprint == made.fingerprint


def test_weights_that_the_config_names_are_those_that_are_hashed(folder):
    (folder / "model.safetensors").rename(folder / "named.safetensors")
    assert file_digests.weight_files(folder) == []
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "transformers_weights": "named.safetensors"}))
    (folder / "consolidated.safetensors").write_bytes(b"not read")
    assert file_digests.weight_files(folder) == [folder / "named.safetensors"]
    first = demur.load_checkpoint(folder).fingerprint
    flipped(folder / "named.safetensors")
    assert demur.load_checkpoint(folder).fingerprint != first


def test_a_gguf_file_with_another_byte_is_converted_again(tmp_path, monkeypatch):
    file = tmp_path / "small.gguf"
    file.write_bytes(b"GGUF" + struct.pack("<I", 3) + bytes(4 << 20))
    monkeypatch.setattr(gguf_files, "_converted", lambda _: (tiny_model("llama"), tiny_tokenizer()))
    first = gguf_files.convert(file)
    flipped(file, at=(1 << 20) + 500_000)
    second = gguf_files.convert(file)
    assert first != second
    # A conversion that lost a byte on the disk is made again.
    whole = (second / "model.safetensors").read_bytes()
    flipped(second / "model.safetensors")
    assert gguf_files.convert(file) == second
    assert (second / "model.safetensors").read_bytes() == whole
