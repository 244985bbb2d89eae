"""Structured null directions in a run: asked for in a study, made in the pass that reads the activations, and kept."""

import tomllib

import pytest
import torch

import demur
from demur.analysis.close_controls import close_controls
from demur.analysis.manifest import DirectionFacts
from demur.core.errors import InputError
from demur.directions.controls.control import control_direction
from demur.engine.checkpoints import load_checkpoint
from demur.measurements.extraction import training_sides
from demur.runs.controls import control_making
from demur.runs.controls.control_jobs import ArmControlsJob, AskedControl
from demur.runs.describe import describe
from demur.runs.driver import carry_out
from demur.runs.executors.in_process import InProcess
from demur.runs.extracting import training_activations
from demur.runs.jobs import ExtractJob, pending_jobs
from demur.runs.run import Run
from demur.runs.store import Store
from demur.study.digest import differences
from demur.study.plan import make_plan
from demur.study.plan_outlook import look_ahead
from demur.study.plan_text import plan_lines
from demur.study.preflight import check
from demur.study.spec import make_study as study_from
from demur.study.study_files import load_study
from tests.test_directions import MedianDifference
from tests.test_study import changed
from tests.tiny_study import EARLIER_DEMO, contents, make_study

STRUCTURED = ("controls.covariance=3", "controls.shuffled-labels=2", "controls.shuffled-labels-orthogonal=2", "controls.halves=1")
QUICK = ('interventions=[{kind="ablate",on=["harmful"]}]',)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("nulls"))


@pytest.fixture
def reads(monkeypatch):
    """The number of passes over training instructions so far, by the function that makes them."""
    counts = {"means": 0, "sides": 0}

    def counted(name, whole):
        def count(*args, **settings):
            counts[name] += 1
            return whole(*args, **settings)

        return count

    monkeypatch.setattr(training_activations, "mean_activations", counted("means", training_activations.mean_activations))
    monkeypatch.setattr(control_making, "training_sides", counted("sides", control_making.training_sides))
    return counts


def begin(study, folder):
    ready = check(make_plan(study))
    store = Store.create(folder, study.digest, study.toml())
    describe(ready, store)
    return ready, store


def test_a_study_says_how_many_of_each():
    asked = {"topics": 20, "shuffled-labels-orthogonal": 3, "random-orthogonal": 1, "seed": 2}
    study = study_from(changed(controls=asked))
    assert study.controls.counts == {"random": 5, "topics": 20, "shuffled-labels-orthogonal": 3, "random-orthogonal": 1}
    assert study_from(tomllib.loads(study.toml())) == study
    assert load_study(EARLIER_DEMO, ["controls.topics-orthogonal=4"]).controls.counts == {"random": 2, "topics-orthogonal": 4}
    planned = [one for one in make_plan(study).directions if one.control_kind == "shuffled-labels-orthogonal"]
    assert [(one.name, one.number, one.control_name) for one in planned] == [
        (f"shuffled-labels-orthogonal-{number + 1}", number, "shuffled-labels-orthogonal") for number in range(3)
    ]
    with pytest.raises(InputError, match="'controls.topic-orthogonal' is not a key of a study; did you mean 'topics-orthogonal'"):
        study_from(changed(controls={"topic-orthogonal": 2}))
    with pytest.raises(InputError, match="and no topics- at the start"):
        study_from(changed(controls={"topics": 2}, checkpoints={"topics-x": {"model": "a/b"}}))


def test_controls_are_numbered_for_each_arm():
    two = {"base": {"model": "a/b"}, "chat": {"model": "a/c"}}
    plan = make_plan(study_from(changed(controls={"topics": 5}, checkpoints=two)))
    found = [(one.beside, one.number) for one in plan.directions if one.control_kind == "topics"]
    assert found == [("base", 0), ("chat", 0), ("base", 1), ("chat", 1), ("base", 2)]


def test_the_digest_has_the_new_kinds_only_where_they_are_asked_for():
    plain, none = study_from(changed()), study_from(changed(controls={"topics": 0, "halves-orthogonal": 0}))
    some = study_from(changed(controls={"topics": 4}))
    assert plain.digest == none.digest != some.digest
    (found,) = differences(some, plain.model_dump(mode="json"))
    assert (found.key, found.here, found.there) == ("controls.topics", 4, None)
    # As it was before these kinds and `controls.completions` existed.
    assert load_study(EARLIER_DEMO).digest == "77457cbd1b4ec6a2"


def test_more_than_there_are_is_refused_before_anything_is_loaded(path):
    with pytest.raises(InputError, match="'topics' needs a topic of at least 4 .* and 4 others; these 4 have no topics"):
        check(make_plan(load_study(path, ["controls.topics=1"])))
    with pytest.raises(InputError, match="'imperatives' needs 8 imperatives and 8 questions"):
        look_ahead(load_study(path, ["controls.imperatives=1"]))
    shipped = load_study(EARLIER_DEMO, ["controls.topics=24"])
    assert "24 topics controls" in "\n".join(plan_lines(look_ahead(shipped)))
    message = (
        "controls.topics-orthogonal is 25, but the training instructions give 12 different ones for each of the 2 arms; ask "
    )
    with pytest.raises(InputError, match=message + "for at most 24"):
        check(make_plan(load_study(EARLIER_DEMO, ["controls.topics-orthogonal=25"])))


def test_one_pass_makes_the_directions_of_an_arm_and_all_its_controls(path, tmp_path, reads):
    study = load_study(path, [*STRUCTURED, *QUICK])
    ready, store = begin(study, tmp_path / "run")
    first = pending_jobs(ready, store)[0]
    assert isinstance(first, ExtractJob)
    assert first.controls == (
        AskedControl("covariance-1", "covariance", "base", 0, 0),
        AskedControl("covariance-3", "covariance", "base", 0, 1),
        AskedControl("shuffled-labels-1", "shuffled-labels", "base", 0, 0),
        AskedControl("shuffled-labels-orthogonal-1", "shuffled-labels-orthogonal", "base", 0, 0),
        AskedControl("halves-1", "halves", "base", 0, 0),
    )
    carry_out(ready, store, InProcess())
    # Two arms with two labels each.
    assert reads == {"means": 4, "sides": 0}
    assert pending_jobs(ready, store) == []
    _check_directions(study, ready, store)
    store.close()


def _check_directions(study, ready, store):
    """What is stored is what the same controls make from activations that are read alone."""
    facts = {one.name: one for one in store.directions()}
    for name in study.checkpoints:
        checkpoint = load_checkpoint(study.checkpoints[name].model, name=name)
        beside = store.direction(name)
        spec = next(arm.spec for arm in ready.plan.arms if arm.checkpoint == name)
        read = (checkpoint, ready.material["harmful"].train, ready.material["harmless"].train)
        harmful, harmless = training_sides(*read, demur.prompt_format(spec, checkpoint), layers=[1], needs="activations")
        for one in ready.plan.directions:
            if one.beside == name and one.from_activations:
                expected = control_direction(
                    one.control_kind, beside, name=one.name, harmful=harmful, harmless=harmless, number=one.number
                )
                stored = store.direction(one.name)
                assert torch.allclose(stored.vector, expected.vector, atol=1e-6)
                assert stored.provenance.cosine == pytest.approx(expected.provenance.cosine, abs=1e-5)
                assert facts[one.name].cosine == stored.provenance.cosine
                assert facts[one.name].null_of.startswith(("any direction in", "the difference of"))
                assert facts[one.name].fingerprint == checkpoint.fingerprint


def test_an_estimator_that_reads_activations_shares_them_with_the_controls(path, tmp_path, reads):
    kind = f"estimator={MedianDifference.__module__}:MedianDifference"
    layers = ("direction.layers=[1,2]", "direction.site=resid_post")
    study = load_study(path, [*STRUCTURED, *QUICK, f"direction.{kind}", *layers, "measurements=[]"])
    ready, store = begin(study, tmp_path / "run")
    carry_out(ready, store, InProcess())
    assert reads == {"means": 0, "sides": 2}
    names = {one.name for one in store.directions()}
    assert {"covariance-3.layer2", "shuffled-labels-orthogonal-2.layer1"} <= names
    store.close()


@pytest.mark.parametrize(
    "lost",
    [
        ("base", "covariance-1", "halves-1"),
        *(pytest.param(one, marks=pytest.mark.soak) for one in (("covariance-2", "shuffled-labels-2"), ("base",))),
    ],
)
def test_a_run_that_lost_some_of_them_makes_only_those_again(path, tmp_path, monkeypatch, lost):
    monkeypatch.setattr(Run, "report", Run.judge_stored)
    study = load_study(path, [*STRUCTURED, *QUICK])
    demur.run(study, tmp_path / "run")
    whole = contents(tmp_path / "run")
    ready, store = begin(study, tmp_path / "run")
    with store._transaction() as db:
        db.executemany("UPDATE directions SET file = NULL WHERE name = ?", [(name,) for name in lost])
    left = pending_jobs(ready, store)
    assert [job.key for job in left] == ["extract base/user-assistant" if "base" in lost else "controls of chat/native"]
    assert {key.removeprefix("direction:") for job in left for key in job.gives} == set(lost)
    assert isinstance(left[0], ExtractJob if "base" in lost else ArmControlsJob)
    store.close()
    demur.run(study, tmp_path / "run")
    assert contents(tmp_path / "run") == whole


def test_controls_that_resemble_their_direction_are_told():
    cosines = {"shuffled-labels": (0.62, -0.7, 0.1), "topics": (0.5, -0.2), "random": (None,), "halves": (0.51,)}
    facts = [
        DirectionFacts(name=f"{kind}-{n}", control=True, control_kind=kind, cosine=cosine)
        for kind, found in cosines.items()
        for n, cosine in enumerate(found)
    ]
    told = close_controls([DirectionFacts(name="own", cosine=0.9), *facts])
    assert told == [
        "2 of 3 shuffled-labels controls have a cosine beyond 0.5 with the direction they stand beside (the largest is -0.70), "
        "so they may do what it does because they resemble it; controls shuffled-labels-orthogonal have no part along it.",
        "1 of 1 halves controls has a cosine beyond 0.5 with the direction they stand beside (the largest is 0.51), so they may "
        "do what it does because they resemble it; controls halves-orthogonal have no part along it.",
    ]
