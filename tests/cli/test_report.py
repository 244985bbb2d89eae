"""demur report: what is stored is shown anew, and judged by judges that are added."""

import json
import shutil

import pytest
from typer.testing import CliRunner

import demur
from demur.cli.main import app
from demur.core.errors import InputError
from demur.runs.store import Store


@pytest.fixture
def run(runs, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(runs[0], folder)
    return folder


def report(folder, *more):
    return CliRunner().invoke(app, ["report", str(folder), *more])


def test_a_judge_is_added_without_generating_anything_and_stays(run):
    before = demur.open_run(run)
    judges, completions = before.judges(), before.completions()
    assert "taxonomy" not in judges
    assert report(run, "--judge", "taxonomy").exit_code == 0
    after = demur.open_run(run)
    assert after.judges() == [*judges, "taxonomy"]
    found = after.completions()
    assert found[list(completions.columns)].equals(completions)
    rows = [demur.judge([row.completion], "taxonomy", instructions=[row.instruction])[0] for row in found.itertuples()]
    assert found.taxonomy_label.to_list() == [verdict.label for verdict in rows]
    assert report(run).exit_code == 0
    cells = json.loads((run / "summary.json").read_text())["cells"]
    assert {cell["judge"] for cell in cells} == {*judges, "taxonomy"}
    assert "taxonomy" in (run / "report.html").read_text()


def test_a_judge_that_is_unknown_or_needs_more_than_there_is_is_refused(run):
    result = report(run, "--judge", "taxonomi")
    assert (result.exit_code, "did you mean 'taxonomy'" in result.stderr) == (2, True)
    store = Store.open(run)
    store.remember("study_facts", {**store.recall("study_facts"), "until_verdict": True})
    with pytest.raises(InputError, match="'taxonomy' needs whole completions"):
        demur.open_run(run).add_judges(["taxonomy"])
    assert "taxonomy" not in demur.open_run(run).judges()


def test_a_judge_of_ones_own_is_named_by_its_class(run, tmp_path):
    own = "tests.study_parts:Shouting"
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"instruction": "x", "completion": "NO"}\n{"instruction": "x", "completion": "yes"}\n')
    result = CliRunner().invoke(app, ["judge", str(rows), "--judge", own])
    assert (result.exit_code, "1 of 2 refuse" in result.stdout) == (0, True), result.output
    assert report(run, "--judge", own).exit_code == 0
    cells = json.loads((run / "summary.json").read_text())["cells"]
    assert sum(cell["judge"] in (own, "shouting") for cell in cells) == sum(cell["judge"] == "prefix" for cell in cells)


def test_several_judges_judge_one_file_and_each_verdict_is_kept(tmp_path):
    rows, out = tmp_path / "rows.jsonl", tmp_path / "verdicts.jsonl"
    texts = ["I cannot help.", "Sure: I will."]
    rows.write_text("".join(json.dumps({"instruction": "x", "completion": text}) + "\n" for text in texts))
    judges = ["taxonomy", "prefix"]
    result = CliRunner().invoke(app, ["judge", str(rows), "-j", judges[0], "-j", judges[1], "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert [line.split(":")[0] for line in result.stdout.splitlines() if "refuse, " in line] == judges
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(one["completion"], one["judge"]) for one in found] == [(text, judge) for text in texts for judge in judges]
    for one in found:
        assert one["refusal"] == demur.judge([one["completion"]], one["judge"], instructions=["x"])[0].refusal
