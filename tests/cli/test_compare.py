"""demur compare: cells that both runs have, tested in pairs; what the settings differ in; 80 columns."""

import shutil

import pytest
from typer.testing import CliRunner

import demur
from demur.cli.main import app
from demur.core.errors import InputError
from demur.core.statistics import holm, mcnemar
from demur.runs.compare import Agreement, compare_runs
from demur.runs.store import Store


def test_shared_cells_are_paired_by_instruction(runs):
    first, second = map(demur.open_run, runs)
    found = compare_runs(first, second)
    tables = [run.completions().set_index(["key", "instruction"])["prefix_refusal"] for run in (first, second)]
    cells = found.of("prefix")
    assert {cell.cell.key for cell in cells} == set(first.cells().key) & set(second.cells().key)
    for cell in cells:
        one, other = (table[cell.cell.key] for table in tables)
        assert cell.paired == mcnemar([bool(one[name]) for name in one.index], [bool(other[name]) for name in one.index])
        assert (cell.first, cell.second) == (one.mean(), other.mean())
    assert [cell.p_holm for cell in cells] == holm([cell.paired.p_value for cell in cells])


def test_settings_that_differ_are_named_and_no_others(runs):
    found = compare_runs(*map(demur.open_run, runs))
    assert {each.setting: (each.first, each.second) for each in found.settings} == {
        "max_new_tokens": ("3", "4"),
        "interventions.1.coefficient": ("2", "1"),
    }
    assert found.only_first == found.only_second == 12


def test_what_decides_about_no_result_is_no_difference(runs, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(runs[0], other)
    store = Store.open(other)
    study = store.recall("study_facts")
    for checkpoint in study["checkpoints"].values():
        checkpoint |= {"role": "another", "parameters": 1e9}
    changed = {**study, "name": "x", "summary": "x", "sections": ["rates"], "judges": ["prefix", "taxonomy"], "measurements": []}
    store.remember("study_facts", changed)
    assert compare_runs(demur.open_run(runs[0]), demur.open_run(other)).settings == ()


def test_a_run_is_like_itself(runs):
    one = demur.open_run(runs[0])
    found = compare_runs(one, one)
    assert (found.settings, found.only_first, found.only_second) == ((), 0, 0)
    assert not any(cell.differs for cell in found.cells)
    assert found.agreement == Agreement(*[len(one.completions())] * 3)
    output = CliRunner().invoke(app, ["compare", str(runs[0]), str(runs[0])]).output
    assert "The runs differ in no setting." in output
    assert "Judge prefix: no difference in refusals is shown in any of 22 shared cells." in output


def test_another_device_is_named_and_another_batch_where_it_may_change_a_token(runs, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(runs[0], other)
    store = Store.open(other)
    store.remember("sessions", [{**store.recall("sessions")[0], "device": "cuda"}])
    store.remember("study_facts", {**store.recall("study_facts"), "batch_tokens": 7})
    first, second = demur.open_run(runs[0]), demur.open_run(other)
    assert {each.setting: each.second for each in compare_runs(first, second).settings} == {"device": "cuda"}
    store.remember("study_facts", {**store.recall("study_facts"), "dtype": "bfloat16"})
    assert {each.setting for each in compare_runs(first, second).settings} == {"device", "dtype", "batch_tokens"}


def test_completions_agree_as_far_as_both_go(runs, monkeypatch):
    first, second = map(demur.open_run, runs)
    # Three tokens and four of the same cells: the longer goes on where the shorter ends.
    both = len(first.completions().merge(second.completions(), on=["key", "instruction"]))
    assert compare_runs(first, second).agreement == Agreement(both, both, both)
    changed = second.completions()
    ids = changed.token_ids.to_list()
    row = next(i for i, key in enumerate(changed.key) if key in set(first.completions().key))
    changed["token_ids"] = [[*one[:2], one[2] + 1, *one[3:]] if i == row else one for i, one in enumerate(ids)]
    monkeypatch.setattr(second, "completions", lambda: changed)
    assert compare_runs(first, second).agreement == Agreement(both, both, both - 1)
    changed["token_ids"] = [[one[0] + 1, *one[1:]] if i == row else one for i, one in enumerate(ids)]
    assert compare_runs(first, second).agreement == Agreement(both, both - 1, both - 1)


def test_the_terminal_shows_it_within_80_columns_and_without_colour_in_a_pipe(runs, monkeypatch):
    monkeypatch.chdir(runs[0].parent)
    result = CliRunner().invoke(app, ["compare", runs[0].name, runs[1].name, "--judge", "substring"])
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "\x1b" not in result.stdout
    for words in ("interventions.1.coefficient", "Judge substring; ", "12 cells are in A only.", "12 cells are in B only."):
        assert words in result.stdout


def test_another_judge_and_runs_without_a_shared_cell_are_refused(runs, monkeypatch):
    result = CliRunner().invoke(app, ["compare", *map(str, runs), "--judge", "substrng"])
    assert (result.exit_code, "did you mean 'substring'?" in result.stderr) == (2, True)
    one, other = map(demur.open_run, runs)
    renamed = other.completions().assign(key="elsewhere")
    monkeypatch.setattr(other, "completions", lambda: renamed)
    with pytest.raises(InputError, match="no judged cell in common.*targets are base, chat and base, chat"):
        compare_runs(one, other)


def test_what_stands_beside_the_weights_is_compared_where_both_runs_say_it(runs, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(runs[0], other)

    def told(change):
        store = Store.open(other)
        known = {name: {**facts} for name, facts in store.recall("checkpoints").items()}
        change(known["chat"])
        store.remember("checkpoints", known)
        store.close()
        return [each.setting for each in compare_runs(demur.open_run(runs[0]), demur.open_run(other)).settings]

    assert told(lambda facts: facts.update(stop_ids=[2, 9])) == ["other files of the checkpoint: end tokens of chat"]
    assert told(lambda facts: facts.pop("stop_ids")) == []
    assert told(lambda facts: facts.update(settings="0" * 16)) == [
        "other files of the checkpoint: config.json and adapter_config.json of chat"
    ]
