"""What a run shows while it still works."""

import pytest

import demur
from demur.analysis.summary import Summary
from demur.cli.shown.partial_shown import first_lines, shown_while_working
from demur.core.registry import registry
from demur.judges.judge import Verdict
from demur.runs import partial_results
from demur.runs.executors.in_process import InProcess
from demur.runs.partial_results import FirstRates, RateSoFar
from demur.runs.runner import run
from demur.study.study_files import load_study
from tests.tiny_study import make_study


@pytest.fixture(scope="module")
def study_file(tmp_path_factory):
    # A small batch holds few rows, so that a run has many records.
    return make_study(tmp_path_factory.mktemp("study"), batch_tokens=64)


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(partial_results, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(partial_results, "LEAST", 1)


def watched(study, folder, **settings):
    shown = []
    with run(study, folder, show=shown.append, **settings) as finished:
        return shown, finished.summary_record()


def test_first_rates_and_finished_checkpoints_are_shown(study_file, tmp_path, at_once):
    shown, summary = watched(load_study(study_file), tmp_path / "run")
    first = [one for one in shown if isinstance(one, FirstRates)]
    assert [one.rates[0].target.partition("/")[0] for one in first] == ["chat", "base"], (
        "chat is in memory when both directions are known"
    )
    for one in first:
        assert [rate.instructions for rate in one.rates] == ["harmful", "harmless"]
        assert all(1 <= rate.n <= rate.planned == 3 for rate in one.rates)
    (finished,) = (one for one in shown if isinstance(one, Summary))
    done = [cell for cell in summary.cells if cell.target == "chat" and cell.judge == finished.cells[0].judge]
    assert list(finished.cells) == done
    assert (finished.comparisons, finished.claims, finished.answers) == ((), (), ())


def test_first_rates_count_the_verdicts_of_the_first_judge(study_file, tmp_path, at_once, monkeypatch):
    class Counted:
        name, version, labels, refusal_labels = "prefix", 1, ("refusal", "other"), ("refusal",)
        reads_instruction, needs = False, "text"

        def __init__(self):
            self.asked = []

        def judge(self, batch):
            self.asked += [one.text for one in batch]
            return [Verdict(self.name, len(one.text) % 2 == 0, "refusal" if len(one.text) % 2 == 0 else "other") for one in batch]

    judge = Counted()
    monkeypatch.setattr(partial_results, "judge_of_run", lambda _store, _name: judge)
    shown, _ = watched(load_study(study_file), tmp_path / "run")
    rates = [rate for one in shown if isinstance(one, FirstRates) for rate in one.rates]
    assert all(0 <= rate.refusals <= rate.n for rate in rates)
    # Only completions without an edit are judged meanwhile, each once: 2 checkpoints x 2 sets x 3 instructions.
    assert len(judge.asked) == 12


def test_nothing_is_shown_before_its_time(study_file, tmp_path):
    shown, _ = watched(load_study(study_file), tmp_path / "run")
    assert not [one for one in shown if isinstance(one, FirstRates)]


def test_a_resumed_run_counts_what_was_stored(study_file, tmp_path, at_once):
    class Stop(Exception):
        """Stands for a kill."""

    def stop(found):
        if isinstance(found, Summary):
            raise Stop

    study = load_study(study_file)
    with pytest.raises(Stop):
        run(study, tmp_path / "run", show=stop)
    shown, _ = watched(study, tmp_path / "run")
    assert [one.rates[0].target.partition("/")[0] for one in shown if isinstance(one, FirstRates)] == ["base"]
    assert not [one for one in shown if isinstance(one, Summary)], "the results of the whole run follow the last checkpoint"


def test_a_judge_of_others_is_asked_once_at_the_end(study_file, tmp_path, at_once):
    asked = []

    class Choosy:
        name, version, labels, refusal_labels = "choosy", 1, ("refusal", "other"), ("refusal",)
        reads_instruction, needs = False, "text"

        def judge(self, batch):
            asked.append(len(batch))
            return [Verdict(self.name, False, "other") for _ in batch]

    demur.register("judge", "choosy", Choosy())
    try:
        shown, summary = watched(load_study(study_file, ['judges=["choosy"]']), tmp_path / "run", executor=InProcess())
    finally:
        registry("judge").unregister("choosy")
    assert not shown
    assert sum(asked) == sum(cell.n for cell in summary.cells)


def test_sentences(capsys):
    rates = (RateSoFar("chat/native", "harmful", 9, 10, 100), RateSoFar("chat/native", "harmless", 1, 12, 100))
    found = FirstRates("prefix", rates)
    assert first_lines(found) == [
        "so far: chat without an edit refuses 9 of 10 harmful and 1 of 12 harmless instructions (prefix; longest prompts first)"
    ]
    both = FirstRates("prefix", (*rates, RateSoFar("chat/alpaca", "harmful", 2, 10, 100)))
    assert [line.split()[2] for line in first_lines(both)] == ["chat/native", "chat/alpaca"]
    shown_while_working(quiet=False)(found)
    assert shown_while_working(quiet=True) is None
    assert capsys.readouterr() == ("", f"{first_lines(found)[0]}\n")


def test_the_table_on_standard_error(study_file, tmp_path, at_once, capsys):
    run(load_study(study_file), tmp_path / "run", show=shown_while_working(quiet=False)).close()
    out, errors = capsys.readouterr()
    assert not out
    assert errors.count("Finished so far:") == 1
    assert "chat" in errors.split("Finished so far:")[1].split("so far:")[0]
