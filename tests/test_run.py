"""A whole study on tiny checkpoints, through the Python API and the command line: the run folder, resumption, exit statuses."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import demur
from demur.cli.main import app
from demur.core.errors import InputError
from demur.runs.store import Store
from demur.study.study_files import preset_names
from tests.tiny import CHAT, HARMFUL, HARMLESS, tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def lineage(tmp_path_factory) -> Path:
    """Two tiny checkpoints of one lineage as folders, a third of another width, instruction files, a study."""
    folder = tmp_path_factory.mktemp("lineage")
    for name, seed, changes in (("base", 1, {}), ("chat", 2, {}), ("wide", 3, {"hidden_size": 64})):
        tiny_model("llama", seed=seed, **changes).save_pretrained(folder / name)
        tiny_tokenizer(chat_template=CHAT).save_pretrained(folder / name)
    for label, rows in (("harmful", HARMFUL), ("harmless", HARMLESS)):
        splits = ["train"] * 4 + ["validation"] + ["test"] * 3
        lines = [{"instruction": row, "split": split} for row, split in zip(rows, splits, strict=True)]
        (folder / f"{label}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (folder / "study.toml").write_text(f"""
name = "tiny"
max_new_tokens = 4
judges = ["prefix", "substring"]
[checkpoints.base]
model = "{folder}/base"
prompts = ["user-assistant", "native"]
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
random = 2
[[interventions]]
kind = "ablate"
on = ["harmful", "harmless"]
[[interventions]]
kind = "add"
coefficient = 2.0
unit = "residual"
""")
    return folder


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def finished(lineage, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "tiny"
    result = invoke("run", lineage / "study.toml", "--out", out, "--quiet")
    assert result.exit_code == 0, result.output
    assert str(out / "report.html") in result.output
    return out


def test_the_run_folder_is_the_contracts(finished):
    names = {path.name for path in finished.iterdir()}
    assert {"study.toml", "run.sqlite", "directions", "summary.json", "report.html", "figures", "tables"} <= names
    summary = json.loads((finished / "summary.json").read_text())
    assert {"study", "created", "versions", "checkpoints", "cells", "directions", "comparisons", "claims", "published"} <= set(
        summary
    )
    fields = {"target", "prompt", "instructions", "intervention", "direction", "source", "layer", "sites", "coefficient", "unit",
              "judge", "n", "refusals", "rate", "ci95"}  # fmt: skip
    # 3 arms x 2 sets x (1 + 5 directions x 2 interventions) x 2 judges
    assert len(summary["cells"]) == 3 * 2 * 11 * 2
    for cell in summary["cells"]:
        assert fields <= set(cell)
        assert cell["n"] == 3
        assert cell["rate"] == cell["refusals"] / 3
        assert 0 <= cell["ci95"][0] <= cell["rate"] <= cell["ci95"][1] <= 1
    assert {cell["source"] for cell in summary["cells"]} == {None, "base", "chat", "random-1", "random-2"}


def test_completions_are_what_single_calls_give(finished, lineage):
    table = demur.open_run(finished).completions()
    assert len(table) == 3 * 2 * 11 * 3
    checkpoint = demur.load_checkpoint(f"{lineage}/chat", name="chat")
    prompt = demur.prompt_format("native", checkpoint)
    direction = demur.load_direction(finished / "directions" / "base.user-assistant.safetensors")
    own = demur.load_direction(finished / "directions" / "chat.safetensors")
    norm = own.provenance["mean residual norm"]
    for kind, edit in {
        "none": None,
        "ablate": demur.ablate(direction),
        "add": demur.add(direction, 2.0, unit="residual").with_residual_norm(norm),
    }.items():
        rows = table[(table.target == "chat") & (table.intervention == kind) & (table.instructions == "harmless")]
        rows = rows[rows.direction == direction.name] if edit else rows
        expected = [demur.generate(checkpoint, [text], prompt, [edit], max_new_tokens=4)[0][0] for text in HARMLESS[5:]]
        assert list(rows.instruction) == list(HARMLESS[5:])
        assert [tuple(ids) for ids in rows.token_ids] == [row.token_ids for row in expected], kind
        assert list(rows.completion) == [row.text for row in expected]


def test_directions_are_the_difference_of_means(finished, lineage):
    checkpoint = demur.load_checkpoint(f"{lineage}/chat", name="chat")
    prompt = demur.prompt_format("native", checkpoint)
    sides = [demur.capture(checkpoint, rows[:4], prompt, layers=[1])[:, 0].double().mean(0) for rows in (HARMFUL, HARMLESS)]
    stored = demur.load_direction(finished / "directions" / "chat.safetensors")
    assert torch.allclose(stored.vector.double() * stored.raw_norm, sides[0] - sides[1], atol=1e-5)
    assert stored.provenance["fingerprint"] == checkpoint.fingerprint
    assert stored.provenance["token read"] == "ASSISTANT"
    assert stored.provenance["harmful"]["n"] == 4


def test_the_same_command_repeats_nothing(finished, lineage, monkeypatch):
    before = demur.open_run(finished).completions()

    def never(*_, **__):
        raise AssertionError("weights were loaded again")

    monkeypatch.setattr("demur.runs.execution.load_checkpoint", never)
    assert invoke("run", lineage / "study.toml", "--out", finished, "--quiet").exit_code == 0
    assert demur.open_run(finished).completions().equals(before)


def test_a_run_goes_on_where_it_stopped(finished, lineage, tmp_path, monkeypatch):
    from demur.runs import execution

    whole, calls = execution.generate_batches, []

    def interrupted(*args, **kwargs):
        for done in whole(*args, **{**kwargs, "batch_tokens": 60}):
            calls.append(len(done))
            if len(calls) == 7:
                raise KeyboardInterrupt
            yield done

    monkeypatch.setattr(execution, "generate_batches", interrupted)
    out = tmp_path / "again"
    assert invoke("run", lineage / "study.toml", "--out", out, "--quiet").exit_code == 130
    kept = len(demur.open_run(out).completions())
    assert kept == sum(calls[:6])
    monkeypatch.setattr(execution, "generate_batches", whole)
    assert invoke("run", lineage / "study.toml", "--out", out, "--quiet").exit_code == 0
    columns = ["key", "index", "instruction", "completion", "token_ids", "prefix_refusal"]
    assert demur.open_run(out).completions()[columns].equals(demur.open_run(finished).completions()[columns])


def test_an_interrupted_command_says_whether_it_goes_on(lineage, tmp_path, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("demur.runs.execution.generate_batches", interrupted)
    for more, said in (
        ([], "the same command resumes where it stopped"),
        (["--fresh"], "the same command without --fresh resumes where it stopped"),
    ):
        result = invoke("run", lineage / "study.toml", "--out", tmp_path / "run", "--quiet", *more)
        assert (result.exit_code, result.stderr) == (130, f"demur: interrupted; {said}\n")
    monkeypatch.setattr("demur.runs.selecting.place_selection.choose", interrupted)
    result = invoke("select", lineage / "study.toml", "--by", "separation", "--quiet")
    assert (result.exit_code, result.stderr) == (130, "demur: interrupted\n")


def test_a_folder_with_something_else_is_refused(finished, lineage, tmp_path):
    result = invoke("run", lineage / "study.toml", "--out", finished, "--set", "direction.layers=[2]", "--quiet")
    assert result.exit_code == 2
    assert "holds another study" in result.output
    (tmp_path / "notes.txt").write_text("mine")
    result = invoke("run", lineage / "study.toml", "--out", tmp_path, "--fresh", "--quiet")
    assert (result.exit_code, (tmp_path / "notes.txt").read_text()) == (2, "mine")
    (tmp_path / "run.sqlite").write_text("not a database" * 100)
    assert "is damaged or not a run of demur" in invoke("report", tmp_path).output


def test_changed_weights_are_noticed(finished, lineage, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(finished, out)
    with Store.open(out)._transaction() as db:
        db.execute("DELETE FROM completions WHERE cell LIKE 'chat%' AND position = 2")
    kept = lineage / "chat-kept"
    shutil.move(lineage / "chat", kept)
    try:
        tiny_model("llama", seed=9).save_pretrained(lineage / "chat")
        tiny_tokenizer(chat_template=CHAT).save_pretrained(lineage / "chat")
        result = invoke("run", lineage / "study.toml", "--out", out, "--quiet")
    finally:
        shutil.rmtree(lineage / "chat")
        shutil.move(kept, lineage / "chat")
    assert result.exit_code == 2
    assert "the weights of 'chat' are not those this run began with" in result.output


def test_checkpoints_of_different_width_are_refused(lineage, tmp_path):
    result = invoke(
        "run", lineage / "study.toml", "--out", tmp_path / "r", "--set", f"checkpoints.chat.model={lineage}/wide", "-q"
    )
    assert result.exit_code == 2
    assert "'chat' has 3 layers of width 64 and 'base' has 3 of 32" in result.output


BAD_RUNS = {
    "a missing file": (["--set", "instructions.harmful.source=none.csv"], "there is no file 'none.csv'"),
    "a missing column": (["--set", "instructions.harmful.source={0}/harmful.jsonl:goal"], "no column 'goal'"),
    "fewer instructions than asked for": (["--set", "direction.pairs=40"], "40 train instructions .* but it has 4"),
    "too many test instructions": (["--set", "instructions.harmless.test=9"], "9 test instructions .* but it has 3"),
    "a template without its slot": (["--set", "checkpoints.chat.prompts=[\"USER: x\"]"], r"needs \{instruction\}"),
    "an unknown key": (["--set", "direction.layerz=[1]"], "did you mean 'layers'"),
    "a layer out of range": (["--set", "direction.layers=[3]"], "layer 3 is out of range: 'base' has layers 0 to 2"),
    "an unknown judge": (["--set", "judges=[\"prefixx\"]"], "did you mean 'prefix'"),
    "an unknown model": (["--set", "checkpoints.chat.model=no-such-folder"], "neither a folder"),
    "a hub id without a hub": (["--set", "checkpoints.chat.model=owner/name"], "no model hub can be reached"),
    "a missing adapter": (["--set", "checkpoints.chat.adapter=nowhere"], "neither a folder with an adapter_config.json"),
    "a device that is not there": (["--device", "cuda"], "no usable GPU"),
    "an unknown dtype": (["--dtype", "float8"], "'dtype' is 'float8'"),
    "a limit of nothing": (["--limit", "0"], "--limit must be at least 1"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_RUNS)
def test_bad_input_is_one_sentence_and_status_2(case, lineage, tmp_path):
    import re

    arguments, message = BAD_RUNS[case]
    result = invoke(
        "run", lineage / "study.toml", "--out", tmp_path / "r", "-q", *(a.format(lineage) if "{0}" in a else a for a in arguments)
    )
    assert result.exit_code == 2, result.output
    assert re.search(message, result.output), result.output
    assert len(result.output.strip().splitlines()) == 1


def test_a_download_that_was_cut_short_is_refused_at_once_without_a_hub(tmp_path, monkeypatch):
    from demur.models.sources import find_model

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    storage, commit = tmp_path / "models--owner--name", "0" * 40
    (storage / "snapshots" / commit).mkdir(parents=True)
    (storage / "snapshots" / commit / "config.json").write_text("{}")
    (storage / "refs").mkdir()
    (storage / "refs" / "main").write_text(commit)
    with pytest.raises(InputError, match="no model hub can be reached"):
        find_model("owner/name")


def test_unknown_study_and_option():
    result = invoke("run", "dmo")
    assert (result.exit_code, "did you mean 'demo'" in result.output) == (2, True)
    assert invoke("run", "demo", "--no-such-option").exit_code == 2


def test_limit(lineage, tmp_path):
    assert invoke("run", lineage / "study.toml", "--out", tmp_path / "r", "--limit", "1", "-q").exit_code == 0
    assert set(demur.open_run(tmp_path / "r").cells().n) == {1}


def test_extract_generate_judge_directions(lineage, tmp_path):
    model, files = f"{lineage}/chat", [f"--harmful={lineage}/harmful.jsonl", f"--harmless={lineage}/harmless.jsonl"]
    common = ["--model", model, "--prompt", "native", "-q"]
    one = tmp_path / "d.safetensors"
    assert invoke("extract", *common, *files, "--pairs", "4", "--layer", "1", "--out", one).exit_code == 0
    result = invoke("extract", *common, *files, "--pairs", "4", "--out", tmp_path / "all.safetensors")
    assert result.exit_code == 0, result.output
    assert [path.name for path in sorted(tmp_path.glob("all*"))] == ["all.layer1.safetensors", "all.layer2.safetensors"]
    assert torch.equal(demur.load_direction(one).vector, demur.load_direction(tmp_path / "all.layer1.safetensors").vector)
    result = invoke("directions", one, tmp_path / "all.layer1.safetensors")
    assert "1.0000" in result.output
    other = tmp_path / "whitened.safetensors"
    assert invoke("extract", *common, *files, "--pairs=4", "--layer=1", "--estimator=whitened", "--out", other).exit_code == 0
    assert demur.load_direction(other).provenance.method == "whitened"
    asked = ["generate", *common, "--instructions", f"{lineage}/harmful.jsonl", "--max-new-tokens", "4"]
    for name, edit in {"plain": [], "ablated": ["-d", one, "--ablate"], "added": ["-d", one, "--add", "4"]}.items():
        assert invoke(*asked, *edit, "--out", tmp_path / f"{name}.jsonl").exit_code == 0
    rows = {name: [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
            for name in ("plain", "ablated", "added")}  # fmt: skip
    assert [row["instruction"] for row in rows["plain"]] == list(HARMFUL[5:])
    assert {row["intervention"] for row in rows["added"]} == {"add"}
    said = {key: rows["added"][0][key] for key in ("direction", "coefficient", "unit", "prompt_format", "dtype", "until_verdict")}
    assert said == {"direction": "d", "coefficient": 4.0, "unit": "unit", "prompt_format": "native", "dtype": "float32",
                    "until_verdict": False}  # fmt: skip
    assert [row["token_ids"] for row in rows["plain"]] != [row["token_ids"] for row in rows["added"]]
    result = invoke("judge", tmp_path / "plain.jsonl", "--judge", "substring", "--out", tmp_path / "v.jsonl")
    assert "of 3 refuse" in result.output
    assert len((tmp_path / "v.jsonl").read_text().splitlines()) == 3
    for bad, message in {
        ("--ablate",): "need a direction",
        ("--layer", "1"): "need a direction",
        ("--unit", "raw"): "need a direction",
        ("-d", one): "either --ablate or --add",
        ("-d", one, "--add", "1", "--layer", "7"): "layer 7 is out of range",
        ("-d", one, "--add", "1", "--sites", "resid"): "not a site",
        ("-d", tmp_path / "none.pt", "--ablate"): "no direction file",
    }.items():
        result = invoke(*asked, *bad, "--out", tmp_path / "x.jsonl")
        assert (result.exit_code, message in result.output) == (2, True), result.output


def test_doctor_plan_presets_compare_export(finished, lineage):
    text = invoke("doctor", "--model", f"{lineage}/chat").output
    for expected in (
        "llama: 3 blocks at model.layers, width 32",
        ">>ASSISTANT<<",
        "BOS          0 at the start",
        "torch.float32",
    ):
        assert expected in text
    plan = invoke("plan", lineage / "study.toml").output
    assert "cells    66, with 198 completions of up to 4 tokens" in plan
    assert "loads    2 for 2 checkpoints" in plan
    assert "llama-7b" in invoke("presets").output
    assert "The runs differ in no setting." in invoke("compare", finished, finished).output
    header = invoke("export", finished, "--format", "csv").output.splitlines()[0]
    assert {"instruction", "completion", "prefix_refusal"} <= set(header.split(","))
    assert len(invoke("export", finished, "--format", "jsonl").output.splitlines()) == 198
    assert "\\toprule" in invoke("export", finished, "--format", "latex").output
    assert invoke("export", finished, "--format", "parquet").exit_code == 2


@pytest.mark.parametrize("preset", [name for name in preset_names() if not name.startswith("demo")])
def test_published_presets_can_be_planned_without_a_hub_and_fail_at_once(preset, tmp_path):
    plan = invoke("plan", preset)
    assert plan.exit_code == 0, plan.output
    assert "not on this machine" in plan.output
    result = invoke("run", preset, "--out", tmp_path / "r")
    assert (result.exit_code, "is not on this machine, and no model hub can be reached" in result.output) == (2, True)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    "command",
    ["run", "plan", "presets", "extract", "generate", "judge", "directions", "doctor", "report", "compare", "export"],
)
def test_every_command_has_help_and_quiet(command):
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert "--quiet" in result.output


def test_extract_takes_a_plain_file_in_its_order(lineage, tmp_path):
    for label, rows in (("a", HARMFUL), ("b", HARMLESS)):
        (tmp_path / f"{label}.txt").write_text("\n".join(rows))
    asked = [
        "extract",
        "--model",
        f"{lineage}/chat",
        "--prompt",
        "native",
        "-q",
        "--layer",
        "1",
        "--out",
        tmp_path / "d.safetensors",
    ]
    files = [f"--harmful={tmp_path}/a.txt", f"--harmless={tmp_path}/b.txt"]
    assert invoke(*asked, *files, "--pairs", "8").exit_code == 0
    from demur.inputs.instructions import digest

    assert demur.load_direction(tmp_path / "d.safetensors").provenance["harmful"] == {"n": 8, "sha256": digest(HARMFUL)}
    result = invoke(*asked, *files, "--pairs", "9")
    assert (result.exit_code, "9 test instructions of 'a' were asked for, but it has 8" in result.output) == (2, True)


def test_help_needs_no_heavy_import():
    code = (
        "import sys; sys.argv=['demur','--help']\ntry:\n import demur.cli.main; demur.cli.main.main()\nexcept SystemExit: pass\n"
    )
    code += (
        "print([m for m in ('torch', 'transformers', 'pandas', 'numpy', 'scipy', 'pydantic', 'matplotlib') if m in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.splitlines()[-1] == "[]"


def test_reports_can_be_rebuilt(finished):
    page = finished / "report.html"
    before = page.read_bytes()
    page.unlink()
    assert invoke("report", finished).exit_code == 0
    assert page.read_bytes() == before


def test_open_run_refuses_a_folder_without_one(tmp_path):
    with pytest.raises(InputError, match=r"no run.sqlite"):
        demur.open_run(tmp_path)


def test_what_a_direction_was_made_of_is_said_where_it_is_tried_on_it(lineage, tmp_path):
    common = ["--model", f"{lineage}/chat", "--prompt", "native", "-q"]
    for label, rows in (("harmful", HARMFUL), ("harmless", HARMLESS)):
        (tmp_path / f"{label}.txt").write_text("\n".join(rows))
    files = [f"--harmful={tmp_path}/harmful.txt", f"--harmless={tmp_path}/harmless.txt"]
    made = invoke("extract", *common, *files, "--pairs", "4", "--layer", "1", "--out", tmp_path / "d.safetensors")
    assert made.exit_code == 0, made.output
    assert "harmful.txt' has no training part; directions are made from its first 4 instructions" in made.stderr
    for name, told in (("harmful.txt", True), ("harmless.txt", True)):
        tried = invoke(
            "generate",
            *common,
            "-i",
            tmp_path / name,
            "-d",
            tmp_path / "d.safetensors",
            "--ablate",
            "--limit",
            "5",
            "-o",
            tmp_path / "c.jsonl",
        )
        assert ("was made from 4 of these 5 instructions" in tried.stderr) is told
    other = invoke(
        "generate",
        *common,
        "-i",
        f"{lineage}/harmful.jsonl",
        "-d",
        tmp_path / "d.safetensors",
        "--ablate",
        "-o",
        tmp_path / "c.jsonl",
    )
    assert (other.exit_code, "was made from" in other.stderr) == (0, False)
