"""Going on with a run when something around it has changed, while another process has it, and what it never stores."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import demur
from demur.cli.main import app
from demur.core.errors import InputError, WorkError
from demur.core.file_locks import hold
from demur.core.versions import versions
from demur.engine.batching import in_batches
from demur.engine.transformers_engine import TransformersEngine
from demur.models.sources import find_model
from demur.runs.store import Store
from tests.tiny import CHAT, tiny_model, tiny_tokenizer
from tests.tiny_study import contents, make_checkpoint, make_study, warnings_of

SECRET = "hf_ThisIsNoRealTokenButMustNotBeStored"


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A study's folder and a finished run beside it, made while a token was in the environment."""
    folder = tmp_path_factory.mktemp("resume")
    make_study(folder)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "OPENAI_API_KEY"):
            patch.setenv(name, SECRET)
        assert run(folder).exit_code == 0
    return folder


def run(folder, out="run", *more):
    return CliRunner().invoke(app, ["run", str(folder / "study.toml"), "--out", str(folder / out), "-q", *more])


@pytest.fixture
def half(done, tmp_path):
    """A copy of the study and of its run, without some of the completions."""
    folder = tmp_path / "copy"
    shutil.copytree(done, folder)
    # The study names its files by path, so the copy's run goes on with the originals unless a test changes them.
    store = Store.open(folder / "run")
    with store._transaction() as db:
        db.execute("DELETE FROM verdicts")
        db.execute("DELETE FROM completions WHERE cell LIKE 'chat%' AND position = 1")
    store.close()
    return folder


def test_no_secret_is_stored(done):
    files = [path for path in (done / "run").rglob("*") if path.is_file()]
    assert len(files) > 10
    for path in files:
        assert SECRET.encode() not in path.read_bytes(), path


def test_half_a_run_ends_as_the_whole_one(done, half):
    for path in half.glob("run/directions/*"):
        path.write_bytes(path.read_bytes()[:40])
    for name in ("summary.json", "report.html"):
        (half / "run" / name).write_text("{ half")
    assert run(half).exit_code == 0
    assert contents(half / "run") == contents(done / "run")
    assert (half / "run" / "report.html").read_bytes() == (done / "run" / "report.html").read_bytes()


def test_changed_instructions_are_refused(half):
    study = (half / "study.toml").read_text()
    rows = [json.loads(line) for line in (half / "harmful.jsonl").read_text().splitlines()]
    original = re.search(r'source = "(.*)/harmful.jsonl"', study)[1]
    store = Store.open(half / "run")
    assert store.manifest().instructions["harmful"].n == 3
    rows[-1]["instruction"] = "another one"
    kept = (half / "harmful.jsonl").read_text()
    there = Path(original) / "harmful.jsonl"
    there.write_text("\n".join(map(json.dumps, rows)))
    try:
        result = run(half)
    finally:
        there.write_text(kept)
    assert (result.exit_code, "the harmful instructions of 'harmful.jsonl:instruction' are not those" in result.stderr) == (
        2,
        True,
    )


def test_a_changed_tokenizer_is_refused(done, half):
    file = done / "chat" / "chat_template.jinja"
    kept = file.read_text()
    file.write_text(CHAT.replace("USER", "User"))
    try:
        result = run(half)
    finally:
        file.write_text(kept)
    assert result.exit_code == 2
    assert "the tokenizer of 'chat' makes other prompts in the format 'native' than when this run began" in result.stderr


def test_versions_that_took_part_are_shown(done, half, monkeypatch):
    real = versions()
    monkeypatch.setattr("demur.core.versions.versions", lambda: {**real, "demur": "9.9"})
    result = run(half)
    assert result.exit_code == 0
    summary = json.loads((half / "run" / "summary.json").read_text())
    assert [session["versions"]["demur"] for session in summary["sessions"]] == [real["demur"], "9.9"]
    (warning,) = warnings_of(summary)
    assert "More than one version" in warning
    assert warning.split(";")[0] in (half / "run" / "report.html").read_text()
    assert "Note: More than one version" in " ".join(result.stdout.split())


def test_a_run_that_only_writes_its_report_anew_takes_no_part(done, tmp_path, monkeypatch):
    folder = tmp_path / "copy"
    shutil.copytree(done, folder)
    before = json.loads((folder / "run" / "summary.json").read_text())
    real = versions()
    monkeypatch.setattr("demur.core.versions.versions", lambda: {**real, "torch": "9.9"})
    assert run(folder).exit_code == 0
    after = json.loads((folder / "run" / "summary.json").read_text())
    assert len(before["sessions"]) == 1
    assert {key: after[key] for key in ("sessions", "versions", "environment", "warnings")} == {
        key: before[key] for key in ("sessions", "versions", "environment", "warnings")
    }


def test_reading_works_while_a_run_writes(half):
    lock = hold(half / "run" / "run.lock")
    try:
        result = run(half)
        assert (result.exit_code, "is being written by process" in result.stderr) == (2, True)
        for command in (["report"], ["export"], ["compare", str(half / "run")]):
            result = CliRunner().invoke(app, [*command[:1], str(half / "run"), *command[1:]])
            assert result.exit_code == 0, result.output
    finally:
        lock.release()
    (warning,) = warnings_of(json.loads((half / "run" / "summary.json").read_text()))
    assert re.match(r"This run is not finished: \d+ of 66 completions are stored. All figures", warning)
    assert warning in (half / "run" / "report.html").read_text()


def test_other_special_tokens_and_families_are_a_warning_that_is_kept(done, tmp_path):
    other = make_checkpoint(tmp_path / "other", family="mistral", seed=8)
    tokenizer = tiny_tokenizer(chat_template=CHAT)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    tokenizer.save_pretrained(other)
    result = run(done, "warned", "--set", f"checkpoints.chat.model={other}")
    assert result.exit_code == 0, result.output
    summary = json.loads((done / "warned" / "summary.json").read_text())
    assert warnings_of(summary) == [
        "base and chat are of different families, llama and mistral.",
        "base and chat have different special tokens: '<|turn|>'.",
    ]
    assert "different families" in (done / "warned" / "report.html").read_text()


def test_pairs_that_cannot_be_compared_are_refused_before_anything_is_made(done, tmp_path, monkeypatch):
    wide = make_checkpoint(tmp_path / "wide", hidden_size=64)
    monkeypatch.setattr("demur.runs.execution.load_checkpoint", None)
    result = run(done, "never", "--set", f"checkpoints.chat.model={wide}")
    assert (result.exit_code, "has 3 layers of width 64" in result.stderr) == (2, True)
    assert not (done / "never").exists()
    assert find_model(str(wide)).path == wide


def scarce(limit, log=None):
    def work(indices):
        if log is not None:
            log.append(len(indices))
        if len(indices) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 is full")
        return [10 * i for i in indices]

    return work


def test_out_of_memory_halves_any_batch_and_says_what_would_fit():
    model, log = tiny_model("llama"), []
    batches = in_batches([5] * 8, scarce(2, log), model=model)
    found = {i: value for indices, values in batches for i, value in zip(indices, values, strict=True)}
    assert found == {i: 10 * i for i in range(8)}
    assert log == [8, 4, 2, 2, 4, 2, 2]
    message = r"row 1 of 9 tokens does not fit .*2.00 GiB more were needed.*bfloat16.*than 9 tokens; the next shorter row has 5"
    with pytest.raises(WorkError, match=message):
        list(in_batches([5, 9], scarce(0), model=model))

    def other(indices):
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes"):
        list(in_batches([5], other, model=model))
    with pytest.raises(InputError, match="row 0 takes 129 tokens, new ones included, but the model has 128 positions"):
        list(in_batches([129], scarce(9), model=model))


def test_capture_halves_its_batches(monkeypatch, checkpoint):
    prompt, texts = demur.prompt_format("native", checkpoint), ["tell me", "write a poem", "make a cake"]
    expected = demur.capture(checkpoint, texts, prompt)
    whole, sizes = checkpoint.model.forward, []

    def forward(*args, **kwargs):
        sizes.append(kwargs["input_ids"].shape[0])
        if sizes[-1] > 1:
            raise torch.OutOfMemoryError
        return whole(*args, **kwargs)

    monkeypatch.setattr(checkpoint.model, "forward", forward)
    assert torch.allclose(demur.capture(checkpoint, texts, prompt), expected, atol=1e-5)
    assert (max(sizes), sizes.count(1)) == (3, 3)


def test_activations_that_are_not_finite_name_everything():
    model = tiny_model("llama", dtype=torch.float16)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.fill_(float("inf"))
    layout = demur.families.layout_of(model.config)
    broken = demur.Checkpoint(TransformersEngine(model, tiny_tokenizer(chat_template=CHAT), layout), "x", name="mine")
    prompt = demur.prompt_format("native", broken)
    message = "the activations of the instruction 'tell me' at layer 2 in checkpoint 'mine' are not finite in torch.float16"
    with pytest.raises(WorkError, match=message):
        demur.capture(broken, ["tell me"], prompt)
    with pytest.raises(WorkError, match="the logits of the instruction 'tell me' in checkpoint 'mine' are not finite"):
        demur.generate(broken, ["tell me"], prompt)


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("config.json", {"rope_parameters": {"rope_theta": 777.0, "rope_type": "default"}}, "config.json"),
        ("generation_config.json", {"eos_token_id": [2, 9]}, "other tokens|ends its completions at the tokens"),
    ],
)
def test_settings_beside_the_weights_that_changed_are_refused(file, change, said, tmp_path):
    make_study(tmp_path)
    assert run(tmp_path).exit_code == 0
    path = tmp_path / "chat" / file
    found = json.loads(path.read_text())
    path.write_text(json.dumps({**found, **change}))
    store = Store.open(tmp_path / "run")
    with store._transaction() as db:
        db.execute("DELETE FROM verdicts")
        db.execute("DELETE FROM completions WHERE cell LIKE 'chat%' AND position = 1")
    store.close()
    refused = run(tmp_path)
    assert refused.exit_code == 2
    assert re.search(said, refused.stderr)
    # What a library writes into the file by itself is no change.
    path.write_text(json.dumps({**found, "transformers_version": "99"}))
    assert run(tmp_path).exit_code == 0
