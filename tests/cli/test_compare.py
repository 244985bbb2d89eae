"""demur compare: cells that both runs have, tested in pairs; what the settings differ in; 80 columns."""

import shutil
import sqlite3
from contextlib import closing

import pytest
from typer.testing import CliRunner

import demur
from demur.cli.main import app
from demur.core.errors import InputError
from demur.core.statistics import holm, mcnemar
from demur.runs.compare import Agreement
from demur.runs.store import Store


def test_shared_cells_are_paired_by_instruction(runs):
    first, second = map(demur.open_run, runs)
    found = demur.compare(first, second)
    tables = [run.completions().set_index(["key", "instruction"])["prefix_refusal"] for run in (first, second)]
    cells = found.of("prefix")
    assert {cell.cell.key for cell in cells} == set(first.cells().key) & set(second.cells().key)
    for cell in cells:
        one, other = (table[cell.cell.key] for table in tables)
        assert cell.paired == mcnemar([bool(one[name]) for name in one.index], [bool(other[name]) for name in one.index])
        assert (cell.first, cell.second) == (one.mean(), other.mean())
    assert [cell.p_holm for cell in cells] == holm([cell.paired.p_value for cell in cells])


def test_settings_that_differ_are_named_and_no_others(runs):
    found = demur.compare(*map(demur.open_run, runs))
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
    assert demur.compare(demur.open_run(runs[0]), demur.open_run(other)).settings == ()


def test_a_run_is_like_itself(runs):
    one = demur.open_run(runs[0])
    found = demur.compare(one, one)
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
    assert {each.setting: each.second for each in demur.compare(first, second).settings} == {"device": "cuda"}
    store.remember("study_facts", {**store.recall("study_facts"), "dtype": "bfloat16"})
    assert {each.setting for each in demur.compare(first, second).settings} == {"device", "dtype", "batch_tokens"}


def test_completions_agree_as_far_as_both_go(runs, monkeypatch):
    first, second = map(demur.open_run, runs)
    # Three tokens and four of the same cells: the longer goes on where the shorter ends.
    both = len(first.completions().merge(second.completions(), on=["key", "instruction"]))
    assert demur.compare(first, second).agreement == Agreement(both, both, both)
    read = second.completions()
    row = next(i for i, key in enumerate(read.key) if key in set(first.completions().key))
    ids, whole = read.token_ids[row], Store.completions

    def with_ids(changed):
        def completions(store, cell=None):
            rows = whole(store, cell)
            return [each._replace(token_ids=changed) if store.folder == second.path and i == row else each
                    for i, each in enumerate(rows)]  # fmt: skip

        monkeypatch.setattr(Store, "completions", completions)
        return demur.compare(first, second).agreement

    assert with_ids((*ids[:2], ids[2] + 1, *ids[3:])) == Agreement(both, both, both - 1)
    assert with_ids((ids[0] + 1, *ids[1:])) == Agreement(both, both - 1, both - 1)


def test_the_terminal_shows_it_within_80_columns_and_without_colour_in_a_pipe(runs, monkeypatch):
    monkeypatch.chdir(runs[0].parent)
    result = CliRunner().invoke(app, ["compare", runs[0].name, runs[1].name, "--judge", "substring"])
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "\x1b" not in result.stdout
    # Every setting has its name, not the first one alone.
    for words in (
        "max_new_tokens",
        "interventions.1.coefficient",
        "Judge substring; ",
        "12 cells are in A only.",
        "12 cells are in B only.",
    ):
        assert words in result.stdout


def test_another_judge_and_runs_without_a_shared_cell_are_refused(runs, tmp_path):
    result = CliRunner().invoke(app, ["compare", *map(str, runs), "--judge", "substrng"])
    assert (result.exit_code, "did you mean 'substring'?" in result.stderr) == (2, True)
    other = shutil.copytree(runs[0], tmp_path / "other")
    with closing(sqlite3.connect(other / "run.sqlite")) as db:
        for table, column in (("cells", "key"), ("completions", "cell"), ("verdicts", "cell")):
            db.execute(f"UPDATE {table} SET {column} = 'another ' || {column}")
        db.execute("UPDATE cells SET facts = json_set(facts, '$.key', key)")
        db.commit()
    with pytest.raises(InputError, match="no judged cell in common.*targets are base, chat and base, chat"):
        demur.compare(runs[0], other)


def test_what_stands_beside_the_weights_is_compared_where_both_runs_say_it(runs, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(runs[0], other)

    def told(change):
        store = Store.open(other)
        known = {name: {**facts} for name, facts in store.recall("checkpoints").items()}
        change(known["chat"])
        store.remember("checkpoints", known)
        store.close()
        return [each.setting for each in demur.compare(demur.open_run(runs[0]), demur.open_run(other)).settings]

    assert told(lambda facts: facts.update(stop_ids=[2, 9])) == ["other files of the checkpoint: end tokens of chat"]
    assert told(lambda facts: facts.pop("stop_ids")) == []
    assert told(lambda facts: facts.update(settings="0" * 16)) == [
        "other files of the checkpoint: config.json and adapter_config.json of chat"
    ]


def test_names_that_stand_for_the_same_are_matched(runs, renamed):
    assert invoke("compare", runs[0], renamed).exit_code == 2  # no arm has the same name
    same = {"base": "before", "chat": "after", "user-assistant": "turns"}
    found = demur.compare(runs[0], renamed, match=same)
    assert (found.settings, found.only_first, found.only_second) == ((), 0, 0)
    cells = demur.open_run(runs[0]).cells()
    assert [cell.cell.key for cell in found.of("prefix")] == list(cells.key[cells.judge == "prefix"])
    assert found.agreement == Agreement(*[len(demur.open_run(renamed).completions())] * 3)
    assert all(cell.first == cell.second and cell.p_holm == 1 for cell in found.cells)
    # An arm is named by both of its names, and its checkpoint goes with it.
    by_arm = demur.compare(runs[0], renamed, match={"base/user-assistant": "before/turns", "chat/native": "after/native"})
    assert by_arm.cells == found.cells


def test_the_terminal_says_which_names_were_matched(runs, renamed):
    matches = [part for name in ("base=before", "chat=after", "user-assistant=turns") for part in ("--match", name)]
    result = invoke("compare", *runs, renamed, *matches)
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert f"C {renamed}, base is called before here, chat is called after here, user-assistant is called turns here" in said
    assert "A and C differ in no setting." in said
    assert "12 cells are in A and not in B." in said
    assert "not in C." not in said


def test_a_match_without_the_other_name_of_a_checkpoint_matches_what_it_can(runs, renamed):
    found = demur.compare(runs[0], renamed, match={"chat": "after"})
    assert {(cell.cell.target, cell.cell.source) for cell in found.cells} == {
        ("chat", None),
        ("chat", "chat"),
        ("chat", "random-1"),
    }
    assert found.only_second == found.only_first > 0


@pytest.mark.parametrize(
    ("match", "words"),
    [
        ("bse=before", "has no checkpoint, prompt format or arm 'bse' to match; did you mean 'base'?"),
        ("base=befor", "has no checkpoint 'befor' that 'base' could match; did you mean 'before'?"),
        ("native=after", "has no prompt format 'after' that 'native' could match; did you mean 'native'?"),
        ("base/native=before/turns", "did you mean 'chat/native'?"),
        ("base=after --match base=before", "'before' and 'after' of "),
        ("base=before --match chat=before", "would match both 'base' and 'chat'"),
        ("base", "is not of the form A_NAME=B_NAME"),
        ("base=before=x", "is not of the form A_NAME=B_NAME"),
    ],
)
def test_names_that_cannot_be_matched_are_refused(runs, renamed, match, words):
    result = invoke("compare", runs[0], renamed, "--match", *match.split())
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr


def test_every_further_run_is_compared_with_the_first(runs):
    both = demur.compare(*runs, runs[0])
    alone = [demur.compare(runs[0], other) for other in (runs[1], runs[0])]
    assert [one.settings for one in both] == [one.settings for one in alone]
    for together, one in zip(both, alone, strict=True):
        assert [(cell.cell, cell.judge, cell.paired) for cell in together.cells] == [
            (cell.cell, cell.judge, cell.paired) for cell in one.cells
        ]
    for judge in ("prefix", "substring"):
        tests = [cell for one in both for cell in one.of(judge)]
        assert [cell.p_holm for cell in tests] == holm([cell.paired.p_value for cell in tests])


def test_one_correction_covers_all_runs_that_are_compared(runs, tmp_path, monkeypatch):
    # The two small runs differ in no refusal. Turned round in one cell, every instruction is another one.
    other = shutil.copytree(runs[0], tmp_path / "other")
    first, second, third = demur.open_run(runs[0]), demur.open_run(other), demur.open_run(runs[0])
    with closing(sqlite3.connect(other / "run.sqlite")) as db:
        turned = (first.completions().key.iloc[0],)
        db.execute("UPDATE verdicts SET refusal = 1 - refusal WHERE judge = 'prefix' AND cell = ?", turned)
        db.commit()
    monkeypatch.setattr("demur.runs.compare.mcnemar", lambda one, other: mcnemar(list(one) * 5, list(other) * 5))
    p = mcnemar([False] * 15, [True] * 15).p_value
    count = len(demur.compare(first, second).of("prefix"))
    assert min(cell.p_holm for cell in demur.compare(first, second).of("prefix")) == pytest.approx(count * p)
    assert min(cell.p_holm for cell in demur.compare(first, second, third)[0].of("prefix")) == pytest.approx(2 * count * p)


def invoke(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))
