"""Run folders: studies that were never begun, completions that ended early, and what is closed."""

import json
import sqlite3

import pytest
from typer.testing import CliRunner

import demur
from demur.cli.main import app
from demur.core.errors import InputError, WorkError
from demur.core.registry import registry
from demur.judges.judge import TextJudge, Verdict
from demur.judges.prefix import PrefixJudge
from demur.runs import describe, schema
from demur.runs.executors.in_process import InProcess
from demur.runs.store import Store
from tests.tiny_study import make_study


class Begins(TextJudge):
    """Decides at the first letter, so earlier than `prefix`."""

    name, version, labels = "begins", 1, ("refusal", "other")

    def __call__(self, text, _instruction="", /):
        return Verdict(self.name, text.startswith("I"), "refusal" if text.startswith("I") else "other")

    def decided(self, text):
        return bool(text)


@pytest.fixture
def begins():
    registry("judge").register("begins", Begins)
    yield
    registry("judge").unregister("begins")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def cut(path, tmp_path_factory):
    """A run whose completions end where `prefix` had decided."""
    folder = tmp_path_factory.mktemp("runs") / "cut"
    demur.run(demur.load_study(path, ["until_verdict=true", 'judges=["prefix"]']), folder).close()
    return folder


def test_a_study_that_was_killed_before_it_began_leaves_nothing_in_the_way(path, tmp_path, monkeypatch):
    first, second = demur.load_study(path, ["max_new_tokens=2", "instructions.harmful.test=2"]), demur.load_study(path)
    with monkeypatch.context() as patch:
        # Killed in the middle of writing itself down: after its instructions, before the study.
        patch.setattr(Store, "remember_study", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            demur.run(first, tmp_path / "run")
    demur.run(second, tmp_path / "run").close()
    with pytest.raises(InputError, match="holds another study"):
        demur.run(first, tmp_path / "run")


def test_no_judge_is_added_where_completions_ended_at_the_verdicts_of_others(cut, begins, tmp_path):
    with demur.open_run(cut) as run:
        with pytest.raises(InputError, match="end where prefix had decided, so they may be too short for the judge 'begins'"):
            run.add_judges(["begins"])
        run.add_judges(["prefix"])
        assert run.judges() == ["prefix"]
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"instruction": "x", "completion": "I", "until_verdict": True}))
    result = CliRunner().invoke(app, ["judge", str(rows), "--judge", "begins"])
    assert (result.exit_code, "may be too short for the judge 'begins'" in " ".join(result.stderr.split())) == (2, True)
    assert CliRunner().invoke(app, ["judge", str(rows), "--judge", "prefix"]).exit_code == 0


def test_verdicts_stay_where_completions_are_too_short_for_the_rules_of_today(cut, monkeypatch):
    with demur.open_run(cut) as run:
        before = run.completions()
        monkeypatch.setattr(PrefixJudge, "version", 2)
        run.report()
        assert run.completions().equals(before)
        assert run.summary()["judges"] == {"prefix": 1}
        assert "The verdicts of prefix are those of version 1 of its rules" in run.summary()["warnings"][0]


class GivesAList:
    """An executor whose records come from another iterator than a generator."""

    name = "list"

    def run(self, jobs, inputs):
        return iter(tuple(InProcess().run(jobs[:0], inputs)))


def test_an_executor_may_return_any_iterator(path, tmp_path):
    with pytest.raises(InputError, match="no judged cell"):
        demur.run(demur.load_study(path), tmp_path / "run", executor=GivesAList())
    with demur.open_run(tmp_path / "run") as run:
        # Without completions there are columns all the same.
        assert {"key", "target", "instruction", "completion", "token_ids"} <= set(run.completions().columns)


def test_every_connection_is_closed(path, cut, tmp_path, monkeypatch):
    made, connect = [], schema.connect

    def counted(file):
        made.append(connect(file))
        return made[-1]

    def fail(*_, **__):
        raise WorkError("stopped")

    monkeypatch.setattr(schema, "connect", counted)
    for command in (["report"], ["compare", str(cut)], ["export"]):
        assert CliRunner().invoke(app, [command[0], str(cut), *command[1:]]).exit_code == 0
    other = demur.load_study(path)
    with pytest.raises(InputError):
        demur.run(other, cut)
    monkeypatch.setattr(describe, "instruction_facts", fail)
    with pytest.raises(WorkError):
        demur.run(other, tmp_path / "run")
    with pytest.raises(InputError, match="stopped before it stored anything"):
        demur.open_run(tmp_path / "run")
    assert made
    for connection in made:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connection.total_changes  # noqa: B018
