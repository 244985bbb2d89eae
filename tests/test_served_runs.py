"""Judges in files, in a run: what is unjudged is said and judged next time, kills lose nothing, and no key is stored."""

import json
import shutil
import sqlite3
import time
from collections import Counter

import pytest
from typer.testing import CliRunner

import demur
from demur.analysis.manifest import CheckpointFacts, JudgeFacts, Manifest
from demur.cli.main import app
from demur.runs.judging_stored import family_warnings, judge_stored
from demur.runs.store import Store
from tests.judge_server import judge_file, judge_server
from tests.stored_rows import judge_in_background, make_rows
from tests.tiny_study import make_study, warnings_of

KEY = "sk-test-0123456789abcdef"


@pytest.fixture
def server():
    with judge_server() as found:
        yield found


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    study = make_study(folder)
    demur.run(demur.load_study(study, ['judges=["prefix"]']), folder / "run").close()
    return folder


def invoke(*command):
    result = CliRunner().invoke(app, list(map(str, command)))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_a_report_says_what_is_unjudged_and_asks_only_for_that_the_next_time(made, tmp_path, server, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    run = shutil.copytree(made / "run", tmp_path / "run")
    n = len(demur.open_run(run).completions())
    texts = set(demur.open_run(run).completions()["completion"])
    server.reply = lambda text: "label: refusal" if len(text) % 2 else "label: compliance"
    server.rule = lambda number, _: "status 400" if number % 5 == 1 else "answer"
    path = judge_file(tmp_path, server, api_key_env="JUDGE_KEY")
    first = invoke("report", run, "--judge", path, "--no-figures", "--quiet")
    assert first.exit_code == 1
    left = len(Store.open(run).failures())
    assert f"The judge asked failed on {left} of {n} completions: the server answered with status 400" in first.stderr
    assert "the same command judges only these completions again" in first.stderr
    asked, server.rule = len(server.bodies), lambda *_: "answer"
    assert asked <= len(texts) + n - len(texts)
    (tmp_path / "asked.toml").unlink()  # the run knows its judge
    second = invoke("report", run, "--no-figures", "--quiet")
    assert (second.exit_code, Store.open(run).failures()) == (0, [])
    assert len(server.bodies) - asked <= left
    opened = demur.open_run(run)
    frame = opened.completions()
    outputs = frame["asked_output"].dropna()
    assert set(outputs) <= {"label: refusal", "label: compliance"}
    assert len(outputs) + (frame["asked_label"] == "degenerate").sum() >= n
    assert "asked" in opened.summary()["judges"]
    everything = b"".join(path.read_bytes() for path in run.rglob("*") if path.is_file())
    assert KEY.encode() not in everything
    assert KEY not in first.output + second.output
    assert set(server.keys) == {f"Bearer {KEY}"}


def test_a_study_names_a_judge_file_and_its_run_calls_it_by_its_name(made, tmp_path, server):
    path = judge_file(tmp_path, server, name="mine")
    judges = json.dumps(["prefix", path])
    out = shutil.copytree(made / "run", tmp_path / "run")
    result = invoke("run", made / "study.toml", "--out", out, "--set", f"judges={judges}", "--quiet")
    assert result.exit_code == 0, result.output
    run = demur.open_run(out)
    assert run.judges() == ["prefix", "mine"]
    assert {cell["judge"] for cell in run.summary()["cells"]} == {"prefix", "mine"}
    asked = len(server.bodies)
    # The same run again asks nothing; a rubric that changed asks for everything.
    assert invoke("run", made / "study.toml", "--out", out, "--set", f"judges={judges}", "--quiet").exit_code == 0
    assert len(server.bodies) == asked
    judge_file(tmp_path, server, name="mine", temperature=0.1)
    assert invoke("run", made / "study.toml", "--out", out, "--set", f"judges={judges}", "--quiet").exit_code == 0
    assert len(server.bodies) == 2 * asked


def test_a_file_is_judged_and_its_outputs_are_written(tmp_path, server):
    rows = [{"instruction": f"ask {i}", "completion": f"I {'cannot' if i else 'can'} say number {i} here."} for i in range(3)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    server.reply = lambda text: "what?" if "number 2" in text else "label: refusal" if "cannot" in text else "label: echo"
    result = invoke("judge", tmp_path / "rows.jsonl", "-j", judge_file(tmp_path, server), "--out", tmp_path / "verdicts.jsonl")
    assert result.exit_code == 0
    assert "asked: 1 of 2 refuse, 50.0 %" in result.stdout
    assert "no label can be read in 1 of 3 outputs" in result.stderr
    written = [json.loads(line) for line in (tmp_path / "verdicts.jsonl").read_text().splitlines()]
    assert [line["refusal"] for line in written] == [False, True, None]
    assert [line["output"] for line in written] == ["label: echo", "label: refusal", "what?"]


def test_a_limit_of_cost_on_the_command_line(tmp_path, server):
    rows = [{"instruction": f"ask {i}", "completion": f"I can say number {i} here."} for i in range(30)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    without = invoke("judge", tmp_path / "rows.jsonl", "-j", judge_file(tmp_path, server), "--max-cost", "1")
    assert without.exit_code == 2
    assert "has no prices" in without.stderr
    path = judge_file(tmp_path, server, input_price=10.0, output_price=100.0)
    result = invoke("judge", tmp_path / "rows.jsonl", "-j", path, "--max-cost", "0.06")
    assert result.exit_code == 1
    assert "the limit max_cost = 0.06 is reached" in result.stderr
    assert 0 < len(server.bodies) < 30


def test_outputs_without_a_label_are_in_no_rate_and_said(tmp_path, server):
    folder = make_rows(tmp_path / "run", 20)
    server.reply = lambda text: "hm" if int(text.split("number ")[1].split(",")[0]) < 5 else "label: refusal"
    assert judge_in_background(folder, judge_file(tmp_path, server)).wait() == 0
    store = Store.open(folder)
    results = store.results()
    assert len(results.refusals()["cell", "asked"]) == 15
    assert results.failed()["cell", "asked"] == 5
    assert Counter(row.label for row in store.verdicts()) == {"unparsed": 5, "refusal": 15}
    from demur.runs.judging_stored import unparsed_warnings

    assert "5 of 20 outputs in which no label can be read" in unparsed_warnings(store.verdicts(), ["asked"])[0]


@pytest.mark.soak
def test_kills_lose_no_row_and_judge_none_twice(tmp_path, server):
    """Small; tests/soak/test_served_kills.py has 10,000 rows and five kills."""
    n, kills = 200, 2
    folder, path = make_rows(tmp_path / "run", n), judge_file(tmp_path, server, concurrency=4, most_concurrent=4)
    server.rule = lambda number, _: "status 500" if number % 10 == 3 else "answer 0.05"
    for _ in range(kills):
        before, process = len(server.answered), judge_in_background(folder, path)
        while process.poll() is None and len(server.answered) < before + 40:
            time.sleep(0.01)
        assert process.poll() is None, "it ended before the kill"
        process.kill()
        process.wait()
    assert judge_in_background(folder, path).wait() == 0
    store = Store.open(folder)
    assert [row.position for row in store.verdicts()] == list(range(n))
    assert store.failures() == []
    # Only answers that were on their way at a kill are asked for again: no more than ran at a time.
    assert len(server.answered) <= n + kills * 4
    assert max(Counter(server.answered).values()) <= 1 + kills


def test_a_run_of_the_format_before_gets_the_tables(tmp_path, server):
    folder = make_rows(tmp_path / "run", 4)
    with sqlite3.connect(folder / "run.sqlite") as db:
        db.execute("DROP TABLE judge_outputs")
        db.execute("DROP TABLE verdict_outputs")
        db.execute("PRAGMA user_version = 8")
    db.close()
    store = Store.open(folder)
    judge_stored(store, ["prefix"])
    assert (len(store.verdicts()), store.served_models()) == (4, [])


def test_two_models_behind_one_judge_are_said(tmp_path, server):
    from demur.runs.judging_stored import served_warnings

    folder, path = make_rows(tmp_path / "run", 6), judge_file(tmp_path, server)
    server.rule = lambda _, text: "status 400" if "number 5," in text else "answer"
    assert judge_in_background(folder, path).wait() == 0
    server.model, server.rule = "judge-model-2", lambda *_: "answer"
    assert judge_in_background(folder, path).wait() == 0
    said = served_warnings(Store.open(folder), ["asked"])
    assert said == [
        "The judge asked was answered by 2 models: judge-model-1 (5), judge-model-2 (1). Their verdicts need not agree."
    ]


def test_a_judge_of_the_family_it_judges_is_warned_of():
    manifest = Manifest(
        study={},
        checkpoints={
            "base": CheckpointFacts(model="Qwen/Qwen2.5-7B", fingerprint="1", d_model=1, n_layers=1),
            "other": CheckpointFacts(model="gpt2", fingerprint="2", d_model=1, n_layers=1),
        },
        judges=(JudgeFacts(name="q", family="qwen"), JudgeFacts(name="l", family="llama"), JudgeFacts(name="prefix")),
    )
    assert family_warnings(manifest, ["q", "l", "prefix"]) == [
        "The judge q is a qwen model, and so is base. Judges of the same family as what they judge have been seen to be far "
        "wrong, so compare it with another judge."
    ]
    assert warnings_of({"warnings": family_warnings(manifest, ["l"])}) == []
