"""More than 200 kinds of bad input, by command: each is refused with exit status 2 and one sentence about the right thing.

Whatever is refused is refused without a traceback, and leaves no run folder and no output file behind.
"""

import csv
import json
import os
import shutil
import tomllib
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from demur.cli.main import app
from demur.core.errors import InputError
from demur.directions.direction import from_raw
from demur.inputs.instructions import load_instructions
from demur.inputs.line_lists import refuse_numbering
from demur.inputs.prompt_formats import template_text
from demur.inputs.repeated_instructions import sameness
from demur.runs.store import Store
from demur.study.spec import make_study as study_of
from demur.study.study_files import load_study
from tests.tiny import HARMFUL, HARMLESS
from tests.tiny_study import make_adapter, make_checkpoint, make_study


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with good and bad things of every kind."""
    folder = tmp_path_factory.mktemp("place")
    make_study(folder)
    make_checkpoint(folder / "wide", seed=3, hidden_size=64)
    make_checkpoint(folder / "deep", seed=4, num_hidden_layers=4)
    make_checkpoint(folder / "learned", family="gpt2", seed=5)
    bare = make_checkpoint(folder / "no-template", seed=6)
    for name in ("chat_template.jinja",):
        (bare / name).unlink(missing_ok=True)
    _broken_checkpoints(folder)
    _instruction_files(folder)
    _directions(folder)
    _runs(folder)
    for label, rows in (("a", HARMFUL), ("b", HARMLESS)):
        (folder / f"{label}.txt").write_text("\n".join(rows))
    (folder / "good.jsonl").write_text('{"instruction": "x", "completion": "I cannot"}\n')
    (folder / "study-bad-toml.toml").write_text("name = ")
    (folder / "study-binary.toml").write_bytes(b"\xff\xfe\x00\x01" * 50)
    (folder / "study-empty.toml").write_text("")
    (folder / "study-latin.toml").write_bytes('name = "caf\u00e9"'.encode("latin-1"))
    (folder / "study-nul.toml").write_bytes(b'name = "a\x00b"')
    (folder / "study-list.toml").write_text("[[checkpoints]]\nmodel = 'x'\n")
    (folder / "study-dir.toml").mkdir()
    (folder / "study-deep.toml").write_text(f"name = {'[' * 100_000}")
    (folder / "study-digits.toml").write_text(f"max_new_tokens = {'9' * 5000}")
    for name in ("study-loop.toml", "loop.txt", "loop"):
        (folder / name).symlink_to(folder / name)
    (folder / "dangling").symlink_to(folder / "nowhere" / "deeper")
    for name in ("study-pipe.toml", "pipe.txt"):
        os.mkfifo(folder / name)
    return folder


def _broken_checkpoints(folder):
    def copy(name, **changes):
        made = make_checkpoint(folder / name, seed=1)
        config = json.loads((made / "config.json").read_text())
        (made / "config.json").write_text(json.dumps({**config, **changes}))
        return made

    (folder / "empty-folder").mkdir()
    copy("unknown-family", model_type="transmogrifier", architectures=["Transmogrifier"])
    copy("remote-code", model_type="own", auto_map={"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"})
    odd = copy("remote-tokenizer")
    settings = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}
    (odd / "tokenizer_config.json").write_text(json.dumps(settings))
    (odd / "own.py").write_text("raise SystemExit('remote code ran')")
    (folder / "remote-code" / "own.py").write_text("raise SystemExit('remote code ran')")
    (copy("no-weights") / "model.safetensors").unlink()
    for name, change in {
        "lacks-weights": lambda weights: weights.pop("model.layers.1.mlp.down_proj.weight"),
        "surplus-weights": lambda weights: weights.update({"model.layers.1.self_attn.q_norm.weight": torch.ones(8)}),
        "odd-weights": lambda weights: weights.update({"model.layers.1.mlp.down_proj.weight": torch.ones(30, 48)}),
        "renamed-weights": lambda weights: weights.update({name.upper(): weights.pop(name) for name in list(weights)}),
    }.items():
        weights = load_file(copy(name) / "model.safetensors")
        change(weights)
        save_file(weights, folder / name / "model.safetensors", metadata={"format": "pt"})
    copy("fewer-blocks", num_hidden_layers=2)
    copy("negative-width", hidden_size=-5)
    copy("text-width", hidden_size="big")
    copy("no-positions", max_position_embeddings=1)
    copy("deep-config", spare=None)
    (folder / "deep-config" / "config.json").write_text('{"spare": ' + "[" * 100_000)
    whole = make_adapter(folder / "chat", folder / "adapter-whole")
    for name, change in {
        "adapter-lacks": lambda weights: weights.pop(min(weights)),
        "adapter-renamed": lambda weights: weights.update(
            {key.replace("layers", "h"): weights.pop(key) for key in list(weights)}
        ),
        "adapter-surplus": lambda weights: weights.update({f"{min(weights)[:-7]}.spare.weight": torch.ones(2)}),
    }.items():
        shutil.copytree(whole, folder / name)
        weights = load_file(whole / "adapter_model.safetensors")
        change(weights)
        save_file(weights, folder / name / "adapter_model.safetensors")
    (copy("garbage-weights") / "model.safetensors").write_bytes(b"garbage" * 100)
    os.truncate(copy("cut-weights") / "model.safetensors", 3000)
    (copy("garbage-config") / "config.json").write_text("{")
    (copy("list-config") / "config.json").write_text("[]")
    (copy("garbage-tokenizer") / "tokenizer.json").write_text("{")
    tokenless = copy("no-tokenizer")
    for path in tokenless.glob("*token*"):
        path.unlink()
    copy("encoder", model_type="bert", architectures=["BertModel"])
    pickled = copy("pickled")
    (pickled / "model.safetensors").unlink()
    with (pickled / "pytorch_model.bin").open("wb") as file:
        torch.save({"x": _Trap(str(folder / "pickle-ran"))}, file)
    adapter = folder / "pickled-adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps(ADAPTER))
    with (adapter / "adapter_model.bin").open("wb") as file:
        torch.save({"x": _Trap(str(folder / "pickle-ran"))}, file)
    for name, text in {"adapter-garbage": "{", "adapter-list": "[]", "adapter-unknown": '{"peft_type": "NOPE"}'}.items():
        (folder / name).mkdir()
        (folder / name / "adapter_config.json").write_text(text)
    (folder / "adapter-no-weights").mkdir()
    (folder / "adapter-no-weights" / "adapter_config.json").write_text(json.dumps(ADAPTER))
    (folder / "garbage.gguf").write_bytes(b"garbage")
    (folder / "cut.gguf").write_bytes(b"GGUF\x03\x00\x00\x00")
    (folder / "empty.gguf").write_bytes(b"")
    _cut_gguf(folder)


def _cut_gguf(folder):
    """A small GGUF file, cut off in its header and in its weights."""
    whole = folder / "whole.gguf"
    writer = gguf.GGUFWriter(whole, "llama")
    writer.add_block_count(3)
    writer.add_embedding_length(32)
    writer.add_token_list([f"token {number}" for number in range(200)])
    writer.add_tensor("blk.0.ffn_down.weight", np.ones((32, 48), dtype=np.float32))
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    for name, size in {"cut-header.gguf": 500, "cut-tokens.gguf": 2000, "cut-tensors.gguf": whole.stat().st_size - 700}.items():
        (folder / name).write_bytes(whole.read_bytes()[:size])


ADAPTER = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}


class _Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def _instruction_files(folder):
    files = {
        "empty.txt": b"",
        "blank.txt": b"\n \n\t\n",
        "latin.txt": "caf\u00e9".encode("latin-1"),
        "nul.txt": b"make\x00a cake\nb\n",
        "nul.csv": b"goal\nmake\x00a cake\n",
        "nul.jsonl": b'{"instruction": "make\\u0000a cake"}\n',
        "surrogate.jsonl": b'{"instruction": "make \\ud800 cake"}\n',
        "binary.txt": bytes(range(256)),
        "header.csv": b"goal\n",
        "gap.csv": b"goal,other\nx,1\n,2\n",
        "short.csv": b"goal,other\nx,1\ny\n",
        "two.csv": b"goal,other\nx,1\n",
        "long-rows.csv": b"goal\nx,1,2\n",
        "double.csv": b"goal,goal\nx,y\n",
        "quote.csv": b'goal\n"never closed\n',
        "broken.json": b"[1, ",
        "object.json": b'{"instruction": "x"}',
        "number.json": b"3",
        "null.json": b"null",
        "numbers.json": b"[1, 2]",
        "lists.json": b'[["x"]]',
        "empty.json": b"[]",
        "nan.jsonl": b'{"instruction": NaN}\n',
        "deep.json": b"[" * 100_000,
        "broken.jsonl": b'{"instruction": "x"\n',
        "number.jsonl": b'{"instruction": 3}\n',
        "null.jsonl": b'{"instruction": null}\n',
        "mixed.jsonl": b'{"instruction": "x"}\n{"goal": "y"}\n',
        "array.jsonl": b"[1]\n",
        "empty-object.jsonl": b"{}\n",
        "split.jsonl": b'{"instruction": "x", "split": "dev"}\n',
        "duplicate.jsonl": b'{"instruction": "x"}\n{"instruction": "X "}\n',
        "set.xlsx": b"x",
        "set": b"x\n",
        "bad.parquet": b"PAR1 no",
        "no-completion.jsonl": b'{"instruction": "x"}\n',
        "half-character.jsonl": b'{"instruction": "x", "completion": "\\ud800"}\n',
        "number-completion.jsonl": b'{"instruction": "x", "completion": 3}\n',
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "folder.jsonl").mkdir()
    for label in ("harmful", "harmless"):
        rows = [{"instruction": f"{label} {i}", "split": "train"} for i in range(9)]
        (folder / f"train-only-{label}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    rows = [json.loads(line) for line in (folder / "harmful.jsonl").read_text().splitlines()]
    leak = [*rows[:-1], {**rows[-1], "instruction": rows[0]["instruction"].upper()}]
    (folder / "leak.jsonl").write_text("\n".join(map(json.dumps, leak)))
    long = [{**row, "instruction": row["instruction"] + " cake" * 300} for row in rows]
    (folder / "long.jsonl").write_text("\n".join(map(json.dumps, long)))


def _directions(folder):
    good = from_raw(torch.arange(1.0, 33.0), name="good", layer=1)
    good.save(folder / "good.safetensors")
    from_raw(torch.arange(1.0, 65.0), name="wide", layer=1).save(folder / "wide.safetensors")
    from_raw(torch.arange(1.0, 33.0), name="late", layer=7).save(folder / "late.safetensors")
    (folder / "garbage.safetensors").write_bytes(b"garbage" * 50)
    (folder / "empty.safetensors").write_bytes(b"")
    (folder / "huge-header.safetensors").write_bytes((2**62).to_bytes(8, "little") + b"{}" * 50)
    (folder / "cut.safetensors").write_bytes((folder / "good.safetensors").read_bytes()[:-20])
    (folder / "folder.safetensors").mkdir()
    save_file({"other": torch.ones(32)}, folder / "other.safetensors")
    save_file({"direction": torch.ones(32)}, folder / "bare.safetensors")
    facts = {
        "format": "demur-direction-1",
        "name": "x",
        "raw_norm": 1.0,
        "layer": 1,
        "position": -1,
        "site": "resid_pre",
        "provenance": {},
    }
    unit = torch.zeros(32)
    unit[0] = 1.0
    for name, tensor, changes in (
        ("format", unit, {"format": "demur-direction-9"}),
        ("site", unit, {"site": "nowhere"}),
        ("norm", unit, {"raw_norm": -1.0}),
        ("text-norm", unit, {"raw_norm": "long"}),
        ("text-layer", unit, {"layer": "one"}),
        ("negative-layer", unit, {"layer": -3}),
        ("matrix", torch.ones(2, 32), {}),
        ("nan", torch.full((32,), float("nan")), {}),
        ("zero", torch.zeros(32), {}),
    ):
        save_file({"direction": tensor}, folder / f"{name}.safetensors", metadata={"demur": json.dumps({**facts, **changes})})
    save_file({"direction": unit}, folder / "no-facts.safetensors", metadata={"demur": "{}"})
    save_file({"direction": unit}, folder / "no-json.safetensors", metadata={"demur": "{"})
    save_file({"direction": unit}, folder / "list.safetensors", metadata={"demur": "[]"})
    torch.save({"a": torch.ones(3)}, folder / "dict.pt")
    torch.save(torch.ones(2, 3), folder / "matrix.pt")
    torch.save(torch.zeros(3), folder / "zero.pt")
    (folder / "garbage.pt").write_bytes(b"garbage")
    torch.save(_Trap(str(folder / "pickle-ran")), folder / "trap.pt")


def _runs(folder):
    def run(name):
        return Store.create(folder / name, "digest", "")

    (folder / "run-empty").mkdir()
    (folder / "run-zero").mkdir()
    (folder / "run-zero" / "run.sqlite").write_bytes(b"")
    (folder / "run-garbage").mkdir()
    (folder / "run-garbage" / "run.sqlite").write_bytes(b"garbage" * 1000)
    run("run-not-begun").close()
    facts = load_study(folder / "study.toml").model_dump(mode="json")
    store = run("run-no-rows")
    store.remember("study_facts", facts)
    store.close()
    store = run("run-later")
    store._db.execute("PRAGMA user_version = 99")
    store.close()
    store = run("run-no-tables")
    store.remember("study_facts", facts)
    store._db.execute("DROP TABLE completions")
    store.close()
    (folder / "run-cut").mkdir()
    (folder / "run-cut" / "run.sqlite").write_bytes((folder / "run-no-rows" / "run.sqlite").read_bytes()[:6000])
    (folder / "notes").mkdir()
    (folder / "notes" / "mine.txt").write_text("mine")


RUN = ["run", "{0}/study.toml", "-q"]
SET = [*RUN, "--set"]
EXTRACT = ["extract", "-m", "{0}/chat", "-p", "native", "--pairs", "4", "--layer", "1", "-q", "--out", "{0}/out/d.safetensors"]
FILES = ["--harmful", "{0}/harmful.jsonl", "--harmless", "{0}/harmless.jsonl"]
GENERATE = ["generate", "-m", "{0}/chat", "-p", "native", "--max-new-tokens", "2", "-q", "--out", "{0}/out/c.jsonl"]
ASKED = [*GENERATE, "-i", "{0}/a.txt"]
LOSS = ["loss", "-m", "{0}/chat", "-q"]
EQUIVALENCE = ["equivalence", "-m", "{0}/chat", "-q", "-d"]

STUDY_SETTINGS = {
    f"spare={'[' * 100_000}": "nested too deep", f"direction.pairs={'9' * 5000}": "direction.pairs",
    f"{'a.' * 5000}a=1": "'a' is not a key", "direction.layers=[1e400]": "layers", "name=2026-01-01": "name",
    "name=../up": "not a name for a study", "name=/etc/x": "not a name for a study", "name=.hidden": "not a name for a study",
    'name=""': "name", "name=3": "name", 'name="a\\nb"': "cannot be printed", 'name="a\\u0000b"': "cannot be printed",
    f"name={'n' * 300}": "not a name for a study", "name=C:x": "not a name for a study", "nam=x": "did you mean 'name'",
    "direction.layerz=1": "did you mean 'layers'", "direction.layers=-1": "layers", "direction.layers=[1, 1]": "twice",
    "direction.layers=[]": "layers", "direction.layers=1.5": "layers", 'direction.layers="al"': "layers",
    "direction.layers=true": "layers", "direction.layers=[3]": "layer 3", "direction.layers=[100000000000000000000]": "layer",
    "direction.pairs=0": "pairs", "direction.pairs=-4": "pairs", "direction.pairs=many": "pairs", "direction.pairs=nan": "pairs",
    "direction.pairs=true": "pairs", "direction.pairs=40": "40 train instructions", "direction.position=0": "position",
    "direction.position=-500": "position -500", "direction.position=x": "position", "direction.site=resid": "site",
    "direction=3": "direction", "direction.pairs.x=1": "pairs", "max_new_tokens=0": "max_new_tokens",
    "max_new_tokens=-1": "max_new_tokens", "max_new_tokens=lots": "max_new_tokens", "max_new_tokens=inf": "max_new_tokens",
    "max_new_tokens=100000": "positions", "batch_tokens=0": "batch_tokens", "batch_tokens=x": "batch_tokens",
    "dtype=float8": "dtype", "dtype=3": "dtype", "split=train": "split", "split=tst": "split", "stop_at_eos=maybe": "stop_at_eos",
    "judges=[]": "judges", 'judges=["nobody"]': "no judge 'nobody'", 'judges=["prefix", "prefix"]': "twice", "judges=3": "judges",
    "controls.random=-1": "random", "controls.seed=x": "seed", "controls.randm=1": "did you mean 'random'",
    "checkpoints={{}}": "checkpoints", "checkpoints.base.model=none": "neither a folder", "checkpoints.base.model=": "model",
    "checkpoints.base.model=3": "model", 'checkpoints.base.model="a\\u0000b"': "cannot be printed",
    f"checkpoints.base.model={'m' * 5000}": "neither a folder", "checkpoints.base.model=a/b/c": "neither a folder",
    "checkpoints.base.model=owner/name": "no model hub", "checkpoints.base.model=owner/name@v1": "no model hub",
    "checkpoints.base.model=owner/na me": "owner/na me", "checkpoints.base.model=../../etc": "neither a folder",
    "checkpoints.base.model=demo:nothing": "no demo model", "checkpoints.base.model=none.gguf": "no GGUF file",
    "checkpoints.base.model={0}/a.txt": "neither a folder", "checkpoints.base.model={0}/empty-folder": "no config.json",
    "checkpoints.base.model={0}/wide": "3 of 64", "checkpoints.base.model={0}/deep": "4 of 32",
    "checkpoints.base.model={0}/unknown-family": "transmogrifier", "checkpoints.base.model={0}/remote-code": "no option allows it",
    "checkpoints.base.model={0}/no-weights": "weights", "checkpoints.base.model={0}/garbage-weights": "garbage-weights",
    "checkpoints.base.model={0}/cut-weights": "cut-weights", "checkpoints.base.model={0}/garbage-config": "config.json",
    "checkpoints.base.model={0}/list-config": "config.json", "checkpoints.base.model={0}/garbage-tokenizer": "tokenizer",
    "checkpoints.base.model={0}/no-tokenizer": "tokenizer", "checkpoints.base.model={0}/encoder": "bert",
    "checkpoints.base.model={0}/pickled": "pickled", "checkpoints.base.model={0}/garbage.gguf": "GGUF",
    "checkpoints.base.model={0}/cut.gguf": "GGUF", "checkpoints.base.model={0}/empty.gguf": "GGUF",
    "checkpoints.base.model={0}/lacks-weights": "such as 'model.layers.1.mlp.down_proj.weight'",
    "checkpoints.base.model={0}/surplus-weights": "config does not describe, such as 'model.layers.1.self_attn.q_norm.weight'",
    "checkpoints.base.model={0}/odd-weights": "is (30, 48), but its config says (32, 48)",
    "checkpoints.base.model={0}/renamed-weights": "weights of",
    "checkpoints.base.model={0}/fewer-blocks": "2 of 32", "checkpoints.base.model={0}/negative-width": "3 of -5",
    "checkpoints.base.model={0}/text-width": "hidden_size", "checkpoints.base.model={0}/no-positions": "1 positions",
    "checkpoints.base.model={0}/deep-config": "config.json", "checkpoints.base.adapter={0}/adapter-lacks": "it lacks",
    "checkpoints.base.adapter={0}/adapter-renamed": "it lacks", "checkpoints.base.adapter={0}/adapter-surplus": "has no place",
    "checkpoints.base.quantise=2bit": "quantise", "checkpoints.base.quantise=8": "quantise",
    "checkpoints.base.modl=x": "did you mean 'model'", "checkpoints.base.adapter=none": "adapter_config.json",
    "checkpoints.base.adapter={0}/empty-folder": "no adapter_config.json", "checkpoints.base.adapter={0}/pickled-adapter": "adapter",
    "checkpoints.base.adapter={0}/adapter-garbage": "adapter", "checkpoints.base.adapter={0}/adapter-list": "adapter",
    "checkpoints.base.adapter={0}/adapter-unknown": "adapter", "checkpoints.base.adapter={0}/adapter-no-weights": "adapter",
    "checkpoints.base.adapter=demo:none": "no demo adapter", "checkpoints.base.adapter=demo:safety-adapter": "does not fit",
    "checkpoints.base.prompts=[]": "prompts", "checkpoints.base.prompts=chatmll": "did you mean 'chatml'",
    'checkpoints.base.prompts=["native", "native"]': "twice", 'checkpoints.base.prompts=["USER: x"]': "needs {{instruction}}",
    'checkpoints.base.prompts=["{{instruction}} {{instruction}}"]': "2 times", "checkpoints.base.prompts=3": "prompts",
    'checkpoints.base.prompts=["<bos> {{instruction}} <bos>"]': "nothing", "checkpoints.random-1.model={0}/base": "random-1",
    "checkpoints.a b.model={0}/base": "not a name", "checkpoints.Chat.model={0}/base": "capitals",
    f"checkpoints.{'c' * 100}.model={{0}}/base": "longer than", "checkpoints.base.parameters=-1": "parameters",
    "checkpoints.base.parameters=inf": "parameters", "checkpoints.base=x": "base",
    "instructions.harmful.source=none.csv": "no file 'none.csv'", "instructions.harmful.source=advbnch": "did you mean 'advbench'",
    "instructions.harmful.source={0}/two.csv": "has the columns", "instructions.harmful.source={0}/harmful.jsonl:goal": "no column",
    "instructions.harmful.source={0}/empty.txt": "no instructions", "instructions.harmful.source={0}/folder.jsonl": "folder.jsonl",
    "instructions.harmful.source={0}/leak.jsonl": "both the training and the test part",
    "instructions.harmful.source={0}/train-only-harmful.jsonl": "no test split", 'instructions.harmful.source="a\\u0000b"': "print",
    f"instructions.harmful.source={'s' * 5000}": "neither an instruction file", "instructions.harmful.source=": "source",
    "instructions.harmful.source={0}/long.jsonl": "positions",
    "instructions.harmful.test=0": "test", "instructions.harmful.test=9": "9 test instructions", "instructions.harmful.tst=3": "test",
    "instructions.harmfull.source=x": "harmfull", "instructions={{}}": "instructions.harmful is missing",
    "interventions=3": "interventions", "interventions.0.kind=abblate": "kind", "interventions.9.kind=add": "number from 0",
    "interventions.0.coefficient=1": "takes no coefficient", "interventions.1.coefficient=nan": "coefficient",
    "interventions.1.coefficient=inf": "coefficient", "interventions.1.coefficient=much": "coefficient",
    "interventions.1.unit=kilo": "unit", "interventions.1.layers=[1]": "own layer", "interventions.0.layers=[9]": "layer 9",
    "interventions.0.layers=[-1]": "layers", "interventions.0.layers=[]": "layers", "interventions.0.sites=[]": "sites",
    'interventions.0.sites=["resid"]': "sites", "interventions.0.positions=some": "positions", "interventions.0.on=[]": "on",
    "interventions.0.on=harmles": "on", 'interventions.0.sources=["bas"]': "did you mean 'base'",
    'interventions.0.targets=["chta"]': "did you mean 'chat'", "interventions.0.strength=2": "strength",
    "prompts.mine=USER: x": "needs {{instruction}}", "prompts.../up={{instruction}}": "empty part", "prompts=3": "prompts",
    "noequals": "expected KEY=VALUE", "=3": "expected KEY=VALUE", "name.x=1": "which is a value", "": "expected KEY=VALUE",
    ".=3": "empty part", "a..b=3": "empty part",
}  # fmt: skip

CASES: dict[str, list[tuple[list[str], str]]] = {
    "run": [
        *(([*SET, key], word) for key, word in STUDY_SETTINGS.items() if word != "nothing"),
        (["run"], "STUDY"),
        (["run", "dmo"], "did you mean 'demo'"),
        (["run", "none.toml"], "no file 'none.toml'"),
        (["run", ""], "neither a preset"),
        (["run", "x" * 5000], "neither a preset"),
        (["run", "{0}/study-bad-toml.toml"], "not valid TOML"),
        (["run", "{0}/study-binary.toml"], "not UTF-8"),
        (["run", "{0}/study-latin.toml"], "not UTF-8"),
        (["run", "{0}/study-nul.toml"], "not valid TOML"),
        (["run", "{0}/study-deep.toml"], "nested too deep"),
        (["run", "{0}/study-digits.toml"], "not valid TOML"),
        (["run", "{0}/study-loop.toml"], "neither a preset"),
        (["run", "{0}/study-pipe.toml"], "neither a preset"),
        (["run", "/dev/zero"], "neither a preset"),
        (["run", "{0}/study-empty.toml"], "is missing"),
        (["run", "{0}/study-list.toml"], "is missing"),
        (["run", "{0}/study-dir.toml"], "neither a preset"),
        (["run", "{0}"], "neither a preset"),
        (["run", "qwen1.5-0.5b", "--set", "instructions.harmful.source=contrast-harmful"], "no model hub"),
        ([*RUN, "--device", "cuda"], "no usable GPU"),
        ([*RUN, "--device", "warp"], "not a device"),
        ([*RUN, "--device", "sprad"], "spread"),
        ([*RUN, "--quantise", "3bit"], "quantise"),
        ([*RUN, "--out", "{0}/loop"], "loop"),
        ([*RUN, "--out", "{0}/dangling"], "dangling"),
        ([*RUN, "--set", "checkpoints.base.model={0}/loop"], "neither a folder"),
        ([*RUN, "--set", "instructions.harmful.source={0}/loop.txt"], "no file"),
        ([*RUN, "--set", "instructions.harmful.source={0}/pipe.txt"], "no file"),
        ([*RUN, "--device", "meta"], "not a device"),
        ([*RUN, "--device", ""], "not a device"),
        ([*RUN, "--dtype", "float8"], "dtype"),
        ([*RUN, "--dtype", 'x"y'], "dtype"),
        ([*RUN, "--limit", "0"], "at least 1"),
        ([*RUN, "--limit", "some"], "--limit"),
        ([*RUN, "--nonsense"], "--nonsense"),
        ([*RUN, "again"], "again"),
        ([*RUN, "--out", "{0}/notes"], "holds other files"),
        ([*RUN, "--out", "{0}/notes", "--fresh"], "holds other files"),
        ([*RUN, "--out", "{0}/a.txt"], "a.txt"),
        ([*RUN, "--out", "{0}/a.txt/under"], "under"),
        ([*RUN, "--out", "/proc/none/run"], "/proc/none/run"),
        ([*RUN, "--out", "{0}/" + "o" * 300], "name too long"),
        ([*RUN, "--out", "{0}/run-zero"], "is empty"),
        ([*RUN, "--out", "{0}/run-garbage"], "damaged"),
        ([*RUN, "--out", "{0}/run-cut"], "damaged"),
        ([*RUN, "--out", "{0}/run-later"], "has format 99"),
        ([*SET, "direction.pairs=3", "--out", "{0}/run-no-rows"], "another study: direction.pairs is 3 in this study and 4 in"),
    ],
    "plan": [
        (["plan"], "STUDY"),
        (["plan", "dmo"], "did you mean 'demo'"),
        (["plan", "{0}/study-binary.toml"], "not UTF-8"),
        (["plan", "demo", "--limit", "-1"], "at least 1"),
        (["plan", "demo", "--set", "dtype=int3"], "dtype"),
        (["plan", "demo", "--set", "direction.layers=[-2]"], "layers"),
        (["plan", "demo", "--device", "warp"], "not a device"),
        (["plan", "demo", "--quantise", "3bit"], "quantise"),
        (["plan", "{0}/study.toml", "--set", "checkpoints.base.model={0}/wide"], "3 of 64"),
        (["plan", "{0}/study.toml", "--set", "checkpoints.base.model={0}/cut.gguf"], "GGUF"),
        (["plan", "{0}/study.toml", "--set", "checkpoints.base.model={0}/whole.gguf", "--set", "checkpoints.chat.model={0}/wide"], "3 of 32"),
        (["plan", "{0}/study.toml", "--set", 'checkpoints.base.prompts=["USER"]'], "prompt"),
        (["plan", "{0}/study.toml", "--set", "checkpoints.base.model={0}/garbage-config"], "config.json"),
    ],
    "extract": [
        (["extract"], "--model"),
        ([*EXTRACT, "--harmful", "{0}/a.txt"], "--harmless"),
        ([*EXTRACT, "--harmful", "none.txt", "--harmless", "{0}/b.txt"], "no file 'none.txt'"),
        ([*EXTRACT, *FILES, "--pairs", "9"], "9 train instructions"),
        ([*EXTRACT, *FILES, "--pairs", "0"], "pairs"),
        ([*EXTRACT, *FILES, "--pairs", "-1"], "pairs"),
        ([*EXTRACT, *FILES, "--pairs", "x"], "--pairs"),
        ([*EXTRACT, *FILES, "--estimator", "none"], "'none'"),
        ([*EXTRACT, *FILES, "--layer", "3"], "layer '3' is out of range"),
        ([*EXTRACT, *FILES, "--layer", "-1"], "layer '-1' is out of range"),
        ([*EXTRACT, *FILES, "--layer", "first"], "layer 'first'"),
        ([*EXTRACT, *FILES, "--layer", "\u00b2"], "layer"),
        ([*EXTRACT, *FILES, "--layer", "--1"], "layer"),
        ([*EXTRACT, *FILES, "--layer", "0"], "choose a later layer"),
        ([*EXTRACT, *FILES, "--position", "0"], "position 0"),
        ([*EXTRACT, *FILES, "--position", "-99"], "position -99"),
        ([*EXTRACT, *FILES, "-p", "chatmll"], "did you mean 'chatml'"),
        ([*EXTRACT, *FILES, "-p", ""], "prompt format"),
        ([*EXTRACT, *FILES, "-p", "USER:"], "prompt format"),
        ([*EXTRACT, *FILES, "-m", "{0}/no-template"], "no chat template"),
        ([*EXTRACT, *FILES, "-m", "none"], "neither a folder"),
        ([*EXTRACT, *FILES, "-m", "{0}/encoder"], "bert"),
        ([*EXTRACT, *FILES, "-a", "none"], "adapter"),
        ([*EXTRACT, *FILES, "--dtype", "int8"], "not a dtype"),
        ([*EXTRACT, *FILES, "--device", "cuda:7"], "no usable GPU"),
        ([*EXTRACT, *FILES, "--out", "{0}/folder.safetensors"], "cannot be written"),
        ([*EXTRACT, *FILES, "--out", "{0}/a.txt/x.safetensors"], "cannot be written"),
        ([*EXTRACT, "--harmful", "{0}/a.txt", "--harmless", "{0}/a.txt"], "same mean activation"),
    ],
    "generate": [
        (["generate"], "--model"),
        ([*GENERATE], "--instructions"),
        *(
            ([*GENERATE, "-i", f"{{0}}/{name}"], word)
            for name, word in {
                "none.txt": "no file", "empty.txt": "no instructions", "blank.txt": "no instructions", "latin.txt": "UTF-8",
                "nul.txt": "NUL", "nul.csv": "NUL", "nul.jsonl": "NUL", "surrogate.jsonl": "surrogate", "binary.txt": "UTF-8",
                "header.csv": "no instructions", "gap.csv:goal": "row 2", "short.csv:other": "row 2", "two.csv": "has the columns",
                "long-rows.csv": "more columns", "double.csv": "goal", "quote.csv": "cannot be read", "broken.json": "json",
                "object.json": "a list", "number.json": "a list", "null.json": "a list", "numbers.json": "objects or strings",
                "lists.json": "objects or strings", "empty.json": "no instructions", "nan.jsonl": "no text", "deep.json": "json",
                "broken.jsonl": "jsonl", "number.jsonl": "no text", "null.jsonl": "no text", "mixed.jsonl": "no column 'instruction'",
                "array.jsonl": "objects or strings", "empty-object.jsonl": "column", "split.jsonl": "split 'dev'",
                "set.xlsx": "ends with", "set": "ends with ''", "bad.parquet": "parquet", "folder.jsonl": "folder.jsonl",
                "two.csv:gaol": "did you mean 'goal'", "long.jsonl": "positions", "train-only-harmful.jsonl": "no test split",
            }.items()
        ),
        ([*ASKED, "--ablate"], "need a direction"),
        ([*ASKED, "--add", "2"], "need a direction"),
        ([*ASKED, "-d", "{0}/good.safetensors"], "either --ablate or --add"),
        ([*ASKED, "-d", "{0}/good.safetensors", "--ablate", "--add", "1"], "either --ablate or --add"),
        ([*ASKED, "-d", "{0}/good.safetensors", "--add", "x"], "--add"),
        ([*ASKED, "-d", "{0}/good.safetensors", "--add", "nan"], "coefficient"),
        ([*ASKED, "-d", "{0}/good.safetensors", "--add", "inf"], "coefficient"),
        ([*ASKED, "-d", "{0}/good.safetensors", "--add", "1", "--unit", "kilo"], "kilo"),
        ([*ASKED, "-d", "{0}/good.safetensors", "--add", "1", "--layer", "7"], "layer 7 is out of range"),
        ([*ASKED, "-d", "{0}/good.safetensors", "--add", "1", "--layer", "-1"], "layer -1"),
        ([*ASKED, "-d", "{0}/good.safetensors", "--add", "1", "--sites", "resid"], "not a site"),
        ([*ASKED, "-d", "{0}/good.safetensors", "--add", "1", "--sites", ""], "site"),
        ([*ASKED, "-d", "{0}/good.safetensors", "--add", "1", "--sites", "resid_pre,resid_pre"], "twice"),
        ([*ASKED, "-d", "{0}/wide.safetensors", "--ablate"], "width"),
        ([*ASKED, "-d", "{0}/late.safetensors", "--add", "1"], "layer 7 is out of range"),
        ([*ASKED, "-d", "/dev/null", "--ablate"], "no direction file"),
        ([*ASKED, "-d", "{0}/huge-header.safetensors", "--ablate"], "not a safetensors file"),
        ([*ASKED, "--add", "1", "-d", "{0}/good.safetensors", "--layer", "9" * 30], "out of range"),
        ([*ASKED, "--max-new-tokens", "9" * 30], "positions"),
        ([*ASKED, "--max-new-tokens", "0"], "--max-new-tokens"),
        ([*ASKED, "--max-new-tokens", "100000"], "positions"),
        ([*ASKED, "--limit", "0"], "limit"),
        ([*ASKED, "--limit", "-2"], "limit"),
        ([*ASKED, "--out", "{0}"], "cannot be written"),
    ],
    "judge": [
        (["judge"], "FILE"),
        (["judge", "none.jsonl"], "no file 'none.jsonl'"),
        (["judge", "{0}/no-completion.jsonl"], "row 1"),
        (["judge", "{0}/number-completion.jsonl"], "row 1"),
        (["judge", "{0}/array.jsonl"], "objects or strings"),
        (["judge", "{0}/broken.jsonl"], "jsonl"),
        (["judge", "{0}/latin.txt"], "UTF-8"),
        (["judge", "{0}/empty.txt"], "holds no"),
        (["judge", "{0}/good.jsonl", "--judge", "prefx"], "did you mean 'prefix'"),
        (["judge", "{0}/good.jsonl", "--judge", ""], "no judge"),
        (["judge", "{0}/good.jsonl", "--out", "{0}"], "cannot be written"),
        (["judge", "{0}/half-character.jsonl", "--out", "{0}/out/v.jsonl"], "surrogate"),
        (["judge", "{0}/pipe.txt"], "no file"),
        (["judge", "{0}/good.jsonl", "--out", "{0}/a.txt/v.jsonl"], "cannot be written"),
    ],
    "directions": [
        (["directions"], "FILE"),
        *(
            (["directions", f"{{0}}/{name}"], word)
            for name, word in {
                "none.safetensors": "no direction file", "garbage.safetensors": "not a safetensors file",
                "empty.safetensors": "not a safetensors file", "cut.safetensors": "not a safetensors file",
                "folder.safetensors": "no direction file", "other.safetensors": "holds other", "bare.safetensors": "metadata",
                "format.safetensors": "demur-direction-9", "site.safetensors": "nowhere", "norm.safetensors": "not finite",
                "text-norm.safetensors": "raw_norm", "text-layer.safetensors": "layer", "negative-layer.safetensors": "layer",
                "matrix.safetensors": "one vector", "nan.safetensors": "not finite", "zero.safetensors": "unit vector",
                "no-facts.safetensors": "metadata", "no-json.safetensors": "metadata", "list.safetensors": "metadata",
                "dict.pt": "steering vectors", "matrix.pt": "one vector", "zero.pt": "points nowhere", "garbage.pt": "plain tensors",
                "trap.pt": "plain tensors", "a.txt": "not a safetensors file",
            }.items()
        ),
        (["directions", "{0}/good.safetensors", "{0}/wide.safetensors"], "widths [32, 64]"),
    ],
    "doctor": [
        (["doctor"], "--model"),
        (["doctor", "-m", ""], "neither a folder"),
        (["doctor", "-m", "none"], "neither a folder"),
        (["doctor", "-m", "~no-such-user/x"], "neither a folder"),
        (["doctor", "-m", "{0}/chat", "-p", "x y"], "needs {{instruction}}"),
        (["doctor", "-m", "{0}/unknown-family"], "transmogrifier"),
        (["doctor", "-m", "{0}/remote-code"], "no option allows it"),
        (["doctor", "-m", "{0}/garbage-weights"], "garbage-weights"),
        (["doctor", "-m", "{0}/no-tokenizer"], "tokenizer"),
        (["doctor", "-m", "{0}/chat", "--dtype", "half"], "not a dtype"),
        (["doctor", "-m", "{0}/chat", "--dtype", "8bit"], "quantise='8bit'"),
        (["doctor", "-m", "{0}/chat", "--quantise", "int8"], "not a quantisation"),
        (["doctor", "-m", "{0}/chat", "--device", "sprad"], "spread"),
        (["doctor", "-m", "{0}/remote-tokenizer"], "no option allows it"),
        (["doctor", "-m", "{0}/cut-header.gguf"], "cannot be read as a GGUF"),
        (["doctor", "-m", "{0}/cut-tokens.gguf"], "cannot be read as a GGUF"),
        (["doctor", "-m", "{0}/cut-tensors.gguf"], "cannot be read as a GGUF"),
        (["doctor", "-m", "{0}/negative-width"], "hidden size (-5)"),
        (["doctor", "-m", "{0}/chat", "-a", "{0}/pickled-adapter"], "adapter"),
    ],
    "report": [
        (["report"], "RUN_DIR"),
        (["report", "{0}/none"], "no run of demur"),
        (["report", "{0}/a.txt"], "no run of demur"),
        (["report", "{0}/run-empty"], "no run of demur"),
        (["report", "{0}/run-zero"], "is empty"),
        (["report", "{0}/run-garbage"], "damaged"),
        (["report", "{0}/run-cut"], "damaged"),
        (["report", "{0}/run-not-begun"], "stopped before it stored anything"),
        (["report", "{0}/run-later"], "has format 99"),
        (["report", "{0}/run-no-rows"], "no"),
        (["report", "{0}/run-no-tables"], "damaged"),
    ],
    "compare": [
        (["compare"], "RUN_A"),
        (["compare", "{0}/run-no-rows"], "RUN_B"),
        (["compare", "{0}/run-no-rows", "{0}/none"], "no run of demur"),
        (["compare", "{0}/run-no-rows", "{0}/run-no-rows"], "no verdicts"),
        (["compare", "{0}/run-garbage", "{0}/run-no-rows"], "damaged"),
    ],
    "export": [
        (["export"], "RUN_DIR"),
        (["export", "{0}/none"], "no run of demur"),
        (["export", "{0}/run-no-rows"], "no completions"),
        (["export", "{0}/run-no-rows", "--format", "xml"], "xml"),
        (["export", "{0}/run-no-rows", "--format", "latex"], "no"),
        (["export", "{0}/run-no-rows", "--format", "parquet"], "--out"),
        (["export", "{0}/run-later"], "has format 99"),
    ],
    "select": [
        (["select"], "STUDY"),
        (["select", "dmo"], "did you mean 'demo'"),
        (["select", "{0}/study.toml", "--by", "luck"], "not a criterion"),
        (["select", "{0}/study.toml", "--set", "direction.pairs=99"], "99 train instructions"),
        (["select", "{0}/study.toml", "--device", "warp"], "not a device"),
        (["select", "{0}/study.toml"], "validation"),
    ],
    "loss": [
        (["loss"], "--model"),
        ([*LOSS, "-d", "{0}/good.safetensors"], "--texts"),
        ([*LOSS, "-t", "{0}/none.txt", "-d", "{0}/good.safetensors"], "no file"),
        ([*LOSS, "-t", "{0}/latin.txt", "-d", "{0}/good.safetensors"], "UTF-8"),
        ([*LOSS, "-t", "{0}/a.txt", "-d", "{0}/none.pt"], "no direction file"),
        ([*LOSS, "-t", "{0}/a.txt", "-d", "{0}/wide.safetensors"], "width"),
        ([*LOSS, "-t", "{0}/a.txt", "-d", "{0}/good.safetensors", "--add", "nan"], "coefficient"),
        ([*LOSS, "-t", "{0}/a.txt", "-d", "{0}/good.safetensors", "--max-tokens", "0"], "max_tokens"),
        ([*LOSS, "-t", "{0}/a.txt", "-d", "{0}/good.safetensors", "--max-tokens", "-5"], "max_tokens"),
        ([*LOSS, "-t", "{0}/a.txt", "-d", "{0}/good.safetensors", "--max-tokens", "1"], "nothing to score"),
    ],
    "equivalence": [
        (["equivalence"], "--model"),
        ([*EQUIVALENCE, "{0}/none.pt"], "no direction file"),
        ([*EQUIVALENCE, "{0}/wide.safetensors"], "width"),
        ([*EQUIVALENCE, "{0}/trap.pt"], "plain tensors"),
        ([*EQUIVALENCE, "{0}/good.safetensors", "--dtype", "x"], "not a dtype"),
    ],
    "presets": [(["presets", "extra"], "extra"), (["presets", "--nope"], "--nope")],
    "": [(["nonsense"], "nonsense"), (["--nonsense"], "--nonsense"), (["runn", "demo"], "runn")],
}  # fmt: skip
TABLE = [(command, arguments, word) for command, cases in CASES.items() for arguments, word in cases]


def test_the_table_has_more_than_200_kinds():
    assert len({tuple(arguments) for _, arguments, _ in TABLE}) == len(TABLE) >= 200


def name_of(value):
    return " ".join(value)[:60] if isinstance(value, list) else None


@pytest.mark.parametrize(("command", "arguments", "word"), TABLE, ids=name_of)
def test_bad_input_is_one_sentence_and_status_2(command, arguments, word, place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = [argument.format(place) for argument in arguments]
    if command == "run" and "--out" not in given:
        given += ["--out", str(tmp_path / "run")]
    result = CliRunner().invoke(app, given)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("demur: ")
    assert word.format(place).lower() in line.lower()
    assert not (place / "pickle-ran").exists()
    assert not (place / "out").exists()


TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), min_size=1, max_size=200)
ODD = st.sampled_from(
    [
        "\u202eright to left",
        "\u05e9\u05dc\u05d5\u05dd",
        "\U0001f9d1\u200d\U0001f692 help",
        "x" * 50_000,
        "a\u0301",
        "\ufeffb",
        '"',
        "{instruction}",
        "\\n",
    ]
)
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def begin_with_marks(rows):
    try:
        refuse_numbering(rows, "rows")
    except InputError:
        return True
    return False


@given(
    rows=st.lists(TEXT | ODD, min_size=1, max_size=8),
    encoding=st.sampled_from(["utf-8", "utf-8-sig"]),
    ending=st.sampled_from(["\n", "\r\n"]),
)
@example(rows=["* 0", "* 0"], encoding="utf-8", ending="\n")
@example(rows=["* 0", "0"], encoding="utf-8", ending="\n")
@QUICK
def test_a_good_file_gives_exactly_its_rows(rows, encoding, ending, tmp_path):
    """JSONL, JSON and CSV hold any text; white space around an instruction is removed, and a row of nothing else is refused.

    An instruction that is repeated is used once.
    """
    stripped = [row.strip() for row in rows]
    # Lists in which every row begins with a bullet or its number are refused; they have tests of their own.
    assume(not begin_with_marks(stripped))
    wanted = list({sameness(row): row for row in reversed(stripped)}.values())[::-1] if all(stripped) else stripped
    order = sorted(wanted, key=stripped.index)
    files = {name: tmp_path / f"rows.{name}" for name in ("jsonl", "json", "csv")}
    files["jsonl"].write_bytes(ending.join(json.dumps({"instruction": row}) for row in rows).encode(encoding))
    files["json"].write_bytes(json.dumps(rows).encode(encoding))
    with files["csv"].open("w", encoding=encoding, newline="") as file:
        table = csv.writer(file, lineterminator=ending, quoting=csv.QUOTE_ALL)
        table.writerows([["instruction"], *([row] for row in rows)])
    for path in files.values():
        if all(wanted):
            assert load_instructions(str(path), split=False).all() == tuple(order), path.suffix
        else:
            with pytest.raises(InputError, match="has no text"):
                load_instructions(str(path), split=False)


@given(content=st.binary(max_size=300), suffix=st.sampled_from(["txt", "csv", "json", "jsonl"]))
@QUICK
def test_any_bytes_are_instructions_or_one_sentence(content, suffix, tmp_path):
    path = tmp_path / f"any.{suffix}"
    path.write_bytes(content)
    try:
        rows = load_instructions(str(path), split=False).all()
    except InputError as error:
        assert str(path) in str(error)
    else:
        assert all(row and row == row.strip() for row in rows)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)
KEYS = [
    "name", "checkpoints", "checkpoints.base", "checkpoints.base.model", "checkpoints.base.prompts", "prompts", "instructions",
    "instructions.harmful", "instructions.harmful.test", "direction", "direction.layers", "direction.pairs", "interventions",
    "controls", "controls.seed", "judges", "split", "max_new_tokens", "dtype", "batch_tokens",
]  # fmt: skip


@given(key=st.sampled_from(KEYS), value=VALUES)
@settings(max_examples=300, deadline=None)
def test_any_value_in_a_study_is_a_study_or_one_sentence(key, value):
    data = load_study("demo").model_dump(mode="json", exclude_none=True)
    *path, last = key.split(".")
    here = data
    for part in path:
        here = here.setdefault(part, {})
    here[last] = value
    try:
        study = study_of(data)
    except InputError:
        return
    study_of(tomllib.loads(study.toml()))


@given(text=TEXT | ODD)
@QUICK
def test_any_template_holds_its_instruction_once_or_is_refused(text):
    try:
        template = template_text(text)
    except InputError as error:
        assert "prompt" in str(error)
    else:
        assert template.count("{instruction}") == 1


@given(text=st.text(max_size=60))
@settings(max_examples=100, deadline=None)
def test_any_setting_is_a_study_or_one_sentence(text):
    try:
        load_study("demo", [text])
    except InputError as error:
        assert str(error)
