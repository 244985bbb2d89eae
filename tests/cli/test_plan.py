"""demur plan: what a study costs, without weights, and without saying what is not known."""

import json
import re

import numpy as np
import pytest
import torch
from gguf import GGUFReader, GGUFWriter
from typer.testing import CliRunner

from demur.cli.main import app
from demur.core.errors import InputError
from demur.models import gguf_files
from demur.models.families import layout_of
from demur.models.model_size import Size, size_of
from demur.models.sources import DEMO_MODEL, find_model
from demur.study import cost
from demur.study.cost import Job, in_words, memory_of, operations
from demur.study.study_files import load_study
from demur.study.throughput import Rates, measure_rates
from tests.tiny import tiny_model
from tests.tiny_study import make_checkpoint, make_study

SIZE = Size(total=1000, blocks=800, head=100, layers=2, width=8, kv_width=4, inner=16, vocabulary=12)


def planned(*arguments):
    result = CliRunner().invoke(app, ["plan", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    # A name is not cut, however long it is.
    assert max(len(line) for line in result.output.splitlines() if line[:8] not in ("  base  ", "  chat  ")) <= 80
    return result.output


def test_a_plan_needs_no_weights_and_says_all_it_should(tmp_path):
    study = make_study(tmp_path)
    for name in ("base", "chat"):
        (tmp_path / name / "model.safetensors").write_bytes(b"no weights")
    text = planned(study)
    assert not re.search(r"\n +[GM]iB", text)
    assert "cells    22, with 66 completions of up to 3 tokens" in text
    assert "loads    2 for 2 checkpoints" in text
    for words in ("weights", "cache", "activations", "GFLOP/s in", "time     about "):
        assert words in text
    assert "MiB" in text


@pytest.mark.parametrize("preset", ["gemma-2-9b", "qwen1.5-0.5b"])
def test_checkpoints_that_are_not_here_are_planned_by_their_number_of_weights(preset):
    text = planned(preset)
    assert "not on this machine" in text
    assert "not known without the config" in text.replace("\n         ", " ")
    assert "time     about " in text


def refused(command, study, *more):
    result = CliRunner().invoke(app, [command, str(study), *more])
    assert result.exit_code == 2, result.output
    return result.stderr


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["direction.layers=[99]"], "layer 99 is out of range"),
        (["interventions=[{kind='ablate', layers=[77]}]"], "layer 77 is out of range"),
        (["judges=['prefx']"], "did you mean 'prefix'"),
        (["instructions.harmful.source='contrast-harmfull'"], "did you mean 'contrast-harmful'"),
        (["instructions.harmful.test=999"], "999 test instructions"),
        (["direction.pairs=999"], "999 train instructions"),
        (["checkpoints.chat.adapter='.'"], "holds no adapter_config.json"),
        (["checkpoints.chat.model='.'"], "holds no config.json"),
    ],
)
def test_a_plan_refuses_what_a_run_refuses(tmp_path, monkeypatch, settings, words):
    study = make_study(tmp_path)
    monkeypatch.chdir(tmp_path)
    changes = [part for setting in settings for part in ("--set", setting)]
    said = refused("plan", study, *changes)
    assert words in said
    assert refused("run", study, "--out", str(tmp_path / "out"), *changes) == said


def test_a_plan_refuses_an_instruction_file_that_a_run_refuses(tmp_path):
    study = make_study(tmp_path)
    (tmp_path / "harmful.jsonl").write_text("{broken", encoding="utf-8")
    said = refused("plan", study)
    assert "harmful.jsonl" in said
    assert refused("run", study, "--out", str(tmp_path / "out")) == said


def test_the_same_weights_under_two_names_are_told(tmp_path):
    study, said = make_study(tmp_path), "are the same weights under two names"
    assert said not in " ".join(planned(study).split())
    again = str(tmp_path / "chat" / ".." / "base")
    assert said in " ".join(planned(study, "--set", f"checkpoints.chat.model='{again}'").split())


def test_a_plan_says_totals_before_directions_and_controls_in_one_line(tmp_path):
    text = planned(make_study(tmp_path))
    assert text.index("cells  ") < text.index("time  ") < text.index("\ncheckpoints\n") < text.index("directions, ")
    assert sum("random" in line for line in text.splitlines()) == 1


def test_instructions_that_cannot_be_read_are_said_to_be_guessed(tmp_path):
    study = make_study(tmp_path)
    assert "usual length" not in planned(study)
    (tmp_path / "harmful.jsonl").unlink()
    text = "".join(planned(study).split())
    assert "assuminginstructionsofausuallength" in text
    assert "harmful.jsonl'cannotbereadhere" in text


def test_nothing_is_said_of_a_size_that_is_not_known(tmp_path):
    study = make_study(tmp_path)
    text = planned(study, "--set", "checkpoints.base.model=owner/name")
    assert "size unknown, not on this machine" in text
    assert "time     not known" in text


@pytest.mark.parametrize("family", ["llama", "gemma2", "mixtral"])
def test_sizes_are_those_of_the_model(family, tmp_path):
    make_checkpoint(tmp_path / family, family=family)
    size, model = size_of(find_model(str(tmp_path / family))), tiny_model(family)
    assert size is not None
    assert size.total == sum(weight.numel() for weight in model.parameters())
    blocks = layout_of(model.config).find_blocks(model)
    assert size.blocks == sum(weight.numel() for block in blocks for weight in block.parameters() if weight.ndim > 1)
    assert size.head == model.get_output_embeddings().weight.numel()
    cache = model(torch.tensor([[1, 2, 3]]), use_cache=True).past_key_values
    keys = cache.layers[0].keys
    assert (size.layers, size.kv_width) == (len(cache.layers), keys.shape[1] * keys.shape[3])


def test_the_demo_checkpoint_is_measured_from_its_header(smollm):
    assert size_of(find_model(DEMO_MODEL)) == Size(
        134515008, 106168320, 28311552, 30, 576, 192, 1536, 49152, 106168320, packable=106168320 + 28311552
    )


def test_a_gguf_header_is_read_once_a_file(tmp_path, monkeypatch):
    path, cache, whole = tmp_path / "model.gguf", tmp_path / "cache", GGUFReader
    monkeypatch.setenv("DEMUR_CACHE", str(cache))

    def write(layers):
        writer = GGUFWriter(path, "llama")
        writer.add_block_count(layers)
        writer.add_tensor("output.weight", np.ones((4, 8), dtype=np.float32))
        for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
            step()

    def reading(allowed):
        monkeypatch.setattr("gguf.GGUFReader", whole if allowed else None)
        return gguf_files.header(path)

    write(3)
    first = reading(allowed=True)
    assert (first.weights, first.settings["block_count"]) == (32, 3)
    gguf_files._header.cache_clear()
    assert reading(allowed=False) == first
    # Another file of that name, and a kept header that was damaged, are read.
    write(4)
    assert reading(allowed=True).settings["block_count"] == 4
    assert len(list((cache / "gguf").iterdir())) == 2
    for kept in (cache / "gguf").iterdir():
        kept.write_text('{"weights": 1')
    gguf_files._header.cache_clear()
    assert reading(allowed=True).settings["block_count"] == 4
    # Nor is a cache needed.
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DEMUR_CACHE", str(tmp_path / "file"))
    gguf_files._header.cache_clear()
    assert reading(allowed=True).settings["block_count"] == 4


def test_a_gguf_file_that_cannot_be_opened_is_refused(tmp_path):
    (tmp_path / "folder.gguf").mkdir()
    for name in ("gone.gguf", "folder.gguf"):
        with pytest.raises(InputError, match="cannot be read as a GGUF file"):
            gguf_files.header(tmp_path / name)


def test_operations_are_two_a_weight_and_token():
    job = Job(SIZE, rows=10, prompt=20, longest=30, read=4, loads=1)
    assert operations(job, new_tokens=5) == 2 * (10 * (24 * 800 + 5 * 100) + 4 * 20 * 800)


def test_time_follows_the_slower_of_arithmetic_and_traffic():
    study = load_study("demo")
    job = Job(SIZE, rows=1000, prompt=20, longest=30, read=4, loads=1)
    slow, fast = Rates(operations=1e3, bytes=1e15), Rates(operations=2e3, bytes=1e15)
    rest = cost.seconds([job], study, Rates(1e15, 1e15), "cpu")[0]
    taken = {rates.operations: cost.seconds([job], study, rates, "cpu")[0] - rest for rates in (slow, fast)}
    assert taken[1e3] == pytest.approx(2 * taken[2e3], rel=1e-3)
    narrow = cost.seconds([job], study, Rates(operations=1e15, bytes=1e3), "cpu")[0] - rest
    assert narrow == pytest.approx(cost.SLOWER[0] * cost.traffic(job, study, "cpu") / 1e3, rel=1e-3)


def test_memory_grows_with_the_batch_and_is_not_guessed():
    job = Job(SIZE, rows=10_000, prompt=20, longest=30, read=4, loads=1)
    small, large = (memory_of(job, load_study("demo", [f"batch_tokens={n}"]), "cpu") for n in (460, 4600))
    assert small.weights == large.weights == 4000
    # 10 rows of 30 + 16 tokens: keys and values of width 4 in 2 layers, 4 bytes each.
    assert small.cache == 2 * 2 * 4 * 10 * 46 * 4
    assert large.cache == 10 * small.cache
    # A GPU's batches are larger, and prompts are passed a few at a time on either.
    processor, gpu = (memory_of(job, load_study("demo"), kind) for kind in ("cpu", "cuda"))
    assert processor.cache == 2 * 2 * 4 * (16384 // 46) * 46 * 4
    assert gpu.cache == 2 * 2 * 4 * (131072 // 46) * 46 * 4
    bare = Job(Size(total=1000, blocks=1000), rows=10, prompt=20, longest=30, read=4, loads=1)
    assert memory_of(bare, load_study("demo"), "cpu") == cost.Memory(4000, None, None)


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.2, 0.7, "about 1 second"),
        (12, 21.3, "about 12 to 21 seconds"),
        (178, 301, "about 3 to 5 minutes"),
        (60, 119, "about 1 to 2 minutes"),
        (100, 100, "about 1.5 minutes"),
        (5400, 14000, "about 1.5 to 4 hours"),
        (9e5, 2e6, "about 10 to 25 days"),
    ],
)
def test_durations_in_words(low, high, words):
    assert in_words(low, high) == words


def test_rates_are_measured_also_where_a_precision_is_slow():
    for dtype in (torch.float32, torch.float16):
        rates = measure_rates(dtype, torch.device("cpu"), 0.02)
        assert rates.operations > 0
        assert rates.bytes > 0


def test_a_config_that_does_not_tell_is_no_size(tmp_path):
    folder = make_checkpoint(tmp_path / "odd")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "transmogrifier"}))
    assert size_of(find_model(str(folder))) is None
