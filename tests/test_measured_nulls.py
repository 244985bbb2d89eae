"""Claims are tested with probabilities of a refusal: for their judge, also of null directions without completions."""

from types import SimpleNamespace

import numpy as np

from demur import load_study
from demur.measurements.measurement import MeasurementRecord
from demur.runs.controls.measured_nulls import refusal_probabilities, unanswered_nulls
from demur.runs.rows import StoredMeasurement
from demur.study.plan import make_plan
from tests.tiny_study import EARLIER_DEMO


def stored(subject, name="refusal-probability", version=1, settings="{}", judge="prefix"):
    record = MeasurementRecord(facts={"judge": judge}, arrays={"probability": np.array([0.25, 0.5])})
    return StoredMeasurement(name, subject, settings, version, record)


def test_only_probabilities_for_the_judge_count():
    records = [stored("a"), stored("b", judge="substring"), stored("c", version=2), stored("d", name="other"),
               stored("e", settings='{"judge": "substring"}', judge="substring")]  # fmt: skip
    assert refusal_probabilities(records, "prefix") == {"a": {0: 0.25, 1: 0.5}}
    assert set(refusal_probabilities(records, "substring")) == {"b", "e"}


def test_null_directions_without_completions_are_those_of_the_study():
    study = load_study(EARLIER_DEMO, ["controls.random=4", "controls.completions=1", 'measurements=["refusal-probability"]'])
    plan = make_plan(study)
    assert plan.null_cells
    manifest, known = SimpleNamespace(study=study.model_dump(mode="json")), [cell.key for cell in plan.cells]
    measured = {cell.key: {} for cell in (*plan.cells, *plan.null_cells[:3])}
    found, told = unanswered_nulls(manifest, known, measured)
    assert [cell.key for cell in found] == [cell.key for cell in plan.null_cells[:3]]
    assert {(cell.control, cell.control_kind) for cell in found} == {(True, "random")}
    assert told == []
    assert unanswered_nulls(manifest, known, dict.fromkeys(known)) == ([], [])


def test_a_study_that_cannot_be_read_is_told():
    manifest = SimpleNamespace(study={"name": "x", "interventions": [{"kind": "gone"}]})
    found, (told,) = unanswered_nulls(manifest, [], {"a null": {}})
    assert found == []
    assert told.startswith("Null directions without completions are left out of the tests: the study of the run: ")
