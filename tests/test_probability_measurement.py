"""The measurement `refusal-probability`: one job for the cells of an arm, the numbers of the library's function, and failures."""

import json
import math

import numpy
import pytest

import demur
from demur.core.errors import InputError, WorkError
from demur.core.registry import registry
from demur.core.statistics import mean_probability_interval
from demur.measurements.exact_refusal import probability_measurement
from demur.measurements.exact_refusal.refusal_probability import bounded_refusal_probability
from demur.measurements.measurement import MeasurementRecord
from demur.runs.jobs import MeasureJob, pending_jobs
from demur.runs.store import Store
from demur.study.plan import make_plan
from demur.study.preflight import check
from tests.study_parts import Starts
from tests.tiny_study import contents, make_study

JUDGE = "tests.study_parts:Starts"
ASKED = {"name": "refusal-probability", "judge": JUDGE, "min_mass": 1e-3}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    given = demur.load_study(make_study(tmp_path_factory.mktemp("probability")))
    return given.model_validate({**given.model_dump(mode="json"), "measurements": [ASKED]})


@pytest.fixture(scope="module")
def folder(study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    demur.run(study, folder)
    return folder


def test_every_cell_has_the_numbers_of_the_library_s_function(study, folder):
    store = Store.open(folder)
    found = {one.subject: one.record for one in store.measurements()}
    cells = store.cells()
    assert set(found) == {cell.key for cell in cells}
    checkpoint = demur.load_checkpoint(study.checkpoints["chat"].model, name="chat")
    prompt, chosen = demur.prompt_format("native", checkpoint), [one for one in cells if one.target == "chat"]
    assert {one.action for one in chosen} == {"", "ablate", "add"}
    for cell in (one for one in chosen if one.action != "add"):
        instructions = [row.instruction for row in store.completions(cell.key)]
        edit = None if not cell.action else demur.ablate(store.direction(cell.direction))
        alone = bounded_refusal_probability(
            checkpoint, instructions, prompt, [edit], Starts(), max_new_tokens=study.max_new_tokens, min_mass=1e-3
        )
        numpy.testing.assert_allclose(found[cell.key].arrays["probability"], alone.probability[0], atol=1e-6)
        numpy.testing.assert_allclose(found[cell.key].arrays["gap"], alone.gap[0], atol=1e-6)
    assert max(record.arrays["probability"].max() for record in found.values()) > 1e-4
    store.close()


def test_the_summary_has_mean_interval_and_gap(folder):
    with demur.open_run(folder) as run:
        (mine,) = [one for one in run.summary()["measurements"] if one["subject"] == "chat/native|harmful|none"]
        stored = next(one for one in run._store.measurements() if one.subject == mine["subject"]).record
    values = stored.arrays["probability"].tolist()
    assert mine["settings"].items() >= {"judge": JUDGE, "min_mass": 1e-3}.items()
    assert mine["summary"] == {
        "n": 3,
        "mean": pytest.approx(numpy.mean(values)),
        "ci95": pytest.approx(mean_probability_interval(values)),
        "gap": pytest.approx(stored.arrays["gap"].mean()),
        "largest_gap": pytest.approx(stored.arrays["gap"].max()),
        "judge": JUDGE,
        "judge_version": 1,
        "max_new_tokens": 3,
        "stop_at_eos": True,
    }
    assert json.loads(json.dumps(mine)) == mine


def test_the_cells_of_an_arm_are_one_job_and_a_finished_run_has_none(study, folder, tmp_path):
    ready, store = check(make_plan(study)), Store.open(folder)
    assert pending_jobs(ready, store) == []
    keys = {cell.key for cell in ready.plan.cells}
    store.close()
    without = study.model_copy(update={"measurements": []})
    demur.run(without, tmp_path / "run")
    store = Store.open(tmp_path / "run")
    jobs = pending_jobs(ready, store)
    assert [type(job) for job in jobs] == [MeasureJob, MeasureJob]
    assert {key for job in jobs for key, _ in job.cells} == keys
    assert len({job.subject for job in jobs}) == 2
    store.close()
    # A study that asks for it later measures the stored cells and gives the same.
    demur.run(study, tmp_path / "run")
    assert contents(tmp_path / "run") == contents(folder)


class Together:
    """Fails together for one reason or another, and alone for one cell."""

    name, version, subjects, settings = "together", 1, "cell", None
    error: type[Exception] = WorkError

    def measure(self, subject, settings):
        if subject.edit is not None and subject.edit.kind == "add":
            raise WorkError("it is an addition")
        return MeasurementRecord({"alone": True})

    def measure_together(self, subjects, settings):
        yield MeasurementRecord({"alone": False})
        raise self.error("one cell failed all")

    def summary(self, record):
        return dict(record.facts)


@pytest.mark.parametrize("error", [WorkError, InputError])
def test_one_cell_does_not_fail_the_others(study, tmp_path, error):
    part = Together()
    part.error = error
    demur.register("measurement", "together", part)
    try:
        asked = study.model_validate({**study.model_dump(mode="json"), "measurements": ["together"]})
        demur.run(asked, tmp_path / "run")
        with demur.open_run(tmp_path / "run") as run:
            summary, cells = run.summary(), run.cells()
            failed = {one.subject: one.reason for one in run._store.unmeasured()}
    finally:
        registry("measurement").unregister("together")
    made = {one["subject"]: one["summary"]["alone"] for one in summary["measurements"]}
    assert len(made) + len(failed) == len(cells[cells.judge == "prefix"])
    assert sum(not alone for alone in made.values()) == 2  # the first cell of each arm
    if error is InputError:
        assert len(made) == 2
        assert set(failed.values()) == {"one cell failed all"}
    else:
        assert failed
        assert all("|add" in key for key in failed)
        assert set(failed.values()) == {"it is an addition"}


@pytest.mark.soak
def test_groups_of_cells_give_the_same(study, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(probability_measurement, "ROWS", 4)
    demur.run(study, tmp_path / "run")
    found = {path: {one.subject: one.record for one in Store.open(path).measurements()} for path in (folder, tmp_path / "run")}
    first, second = found.values()
    assert first.keys() == second.keys()
    for key, record in first.items():
        numpy.testing.assert_allclose(record.arrays["probability"], second[key].arrays["probability"], atol=1e-6)


def test_a_judge_that_reads_the_whole_text_is_refused_before_anything_is_loaded(study):
    for judge, message in (("substring", "does not decide by the beginning"), ("prefx", "there is no judge")):
        with pytest.raises(ValueError, match=message):
            study.model_validate(
                {**study.model_dump(mode="json"), "measurements": [{"name": "refusal-probability", "judge": judge}]}
            )


def test_interval_of_a_mean_probability():
    values = [0.02, 0.9, 0.4, 0.11, 0.63]
    low, high = mean_probability_interval(values)
    assert 0 < low < numpy.mean(values) < high < 1
    # By hand: Student's t with four degrees of freedom on the log-odds.
    mean, error = numpy.mean(values), numpy.std(values, ddof=1) / math.sqrt(5)
    half = 2.7764451 * error / (mean * (1 - mean))
    odds = math.log(mean / (1 - mean))
    assert low == pytest.approx(1 / (1 + math.exp(half - odds)), rel=1e-6)
    assert high == pytest.approx(1 / (1 + math.exp(-half - odds)), rel=1e-6)
    assert mean_probability_interval([0.3]) is None
    assert mean_probability_interval([0.0, 0.0]) is None
    assert mean_probability_interval([1.0, 1.0]) is None
    assert mean_probability_interval([0.25, 0.25]) == pytest.approx((0.25, 0.25))
    mirrored = mean_probability_interval([1 - value for value in values])
    assert mirrored == pytest.approx((1 - high, 1 - low))
