"""Jobs: the graph of a study, the same records every time, by anyone, in an order without a barrier; and what is measured."""

import itertools
import json
import pickle
import random

import numpy
import pytest
from pydantic import BaseModel

import demur
from demur.core.errors import InputError, WorkError
from demur.core.registry import registry
from demur.engine.checkpoints import load_checkpoint
from demur.inputs.chat_templates import NativeTemplate
from demur.measurements.by_layer import SeparationByLayer
from demur.measurements.measurement import MeasurementRecord, measurement
from demur.models import memory_budget
from demur.runs.describe import describe, planned_cell
from demur.runs.driver import carry_out, commit
from demur.runs.execution import run_job
from demur.runs.executors.executor import Executor
from demur.runs.executors.in_process import InProcess
from demur.runs.job_inputs import JobInputs
from demur.runs.jobs import (
    AskedMeasurement,
    ControlJob,
    ExtractJob,
    GenerateJob,
    MeasureJob,
    canonical,
    cell_key,
    direction_key,
    pending_jobs,
    stored_keys,
)
from demur.runs.records import DirectionMade
from demur.runs.rows import StoredMeans, StoredMeasurement, UnmeasuredSubject
from demur.runs.run import Run
from demur.runs.store import Store
from demur.study.load_order import order_jobs
from demur.study.plan import make_plan
from demur.study.plan_outlook import look_ahead
from demur.study.preflight import check
from demur.study.spec import InterventionSpec, MeasurementSpec
from tests.tiny import CHAT, tiny_tokenizer
from tests.tiny_study import contents, make_study, warnings_of


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return demur.load_study(make_study(tmp_path_factory.mktemp("jobs")))


@pytest.fixture(scope="module")
def whole(study, tmp_path_factory):
    """The contents of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    demur.run(study, folder)
    return contents(folder)


def begin(study, folder):
    """A checked plan and a run folder in which nothing was done yet."""
    ready, store = check(make_plan(study)), Store.create(folder, study.digest, study.toml())
    describe(ready, store)
    return ready, store


def finish(store):
    Run(store).report()
    store.close()


def plain(record):
    """A record as something that compares equal where it says the same."""
    if isinstance(record, DirectionMade):
        return record.direction.to_bytes(), record.facts
    if isinstance(record, StoredMeasurement):
        return record.key, record.version, record.record.facts, record.array_bytes()
    if isinstance(record, StoredMeans):
        return record.arm, record.label, record.complete, record.facts, record.array_bytes()
    return record


def test_the_job_graph_of_a_study(study, tmp_path):
    ready, store = begin(study, tmp_path)
    by_layer = (AskedMeasurement("by-layer"),)
    extract_base, extract_chat, control, generate_base, generate_chat = jobs = pending_jobs(ready, store)
    assert extract_base == ExtractJob("base/user-assistant", "base", ("base",), by_layer)
    assert extract_chat == ExtractJob("chat/native", "chat", ("chat",), by_layer)
    assert control == ControlJob("random-1", "random", "base", 0)
    assert (control.weights, control.needs, control.gives) == ((), ("direction:base",), ("direction:random-1",))
    for job, own in ((generate_base, "base"), (generate_chat, "chat")):
        assert (job.checkpoint, job.weights) == (own, (own,))
        # Baselines on both sets, ablation on one, addition on both, of three directions.
        assert [positions for _, positions in job.rows] == [(0, 1, 2)] * (2 + 3 + 2 * 3)
        assert set(job.directions) == {"base", "chat", "random-1"}
        assert job.gives == tuple(cell_key(cell) for cell, _ in job.rows)
    assert len({job.key for job in jobs}) == len(jobs)
    assert pickle.loads(pickle.dumps(jobs)) == jobs
    carry_out(ready, store, InProcess())
    assert pending_jobs(ready, store) == []
    with store._transaction() as db:
        db.execute("DELETE FROM completions WHERE cell LIKE 'chat%ablate%' AND position = 1")
    (left,) = pending_jobs(ready, store)
    assert isinstance(left, GenerateJob)
    assert [positions for _, positions in left.rows] == [(1,)] * 3
    store.close()


class Twice:
    """Runs every job twice and gives the records of the second time, after comparing both."""

    name = "twice"

    def __init__(self):
        self.compared = []

    def run(self, jobs, inputs):
        loaded = {name: load_checkpoint(spec.model, name=name) for name, spec in inputs.study.checkpoints.items()}
        for job in jobs:
            first, second = (list(run_job(job, inputs, loaded)) for _ in range(2))
            assert list(map(plain, first)) == list(map(plain, second))
            self.compared.append(job.key)
            yield from second


def test_every_job_run_twice_gives_equal_records_and_storing_them_twice_changes_nothing(study, whole, tmp_path):
    ready, store = begin(study, tmp_path / "run")
    executor = Twice()
    assert isinstance(executor, Executor)
    asked = [AskedMeasurement(name) for name in ("by-layer", "loss", "equivalence")]
    jobs = pending_jobs(ready, store, asked)
    kept = []
    for record in executor.run(jobs, JobInputs(ready, store)):
        for _ in range(2):
            commit(record, store)
        kept.append(record)
    assert executor.compared == [job.key for job in jobs]
    assert pending_jobs(ready, store, asked) == []
    before = [plain(one) for one in store.measurements()]
    for record in kept:
        commit(record, store)
    assert [plain(one) for one in store.measurements()] == before
    found = {"completions": store.completions(), "directions": store.directions(), "cells": store.cells()}
    assert found == {name: whole[name] for name in found}
    store.close()


class FromKeysAlone:
    """Runs each job as another process would: the job is pickled, its inputs are found anew, and weights are loaded for it."""

    name = "from-keys"

    def __init__(self, study, folder):
        self.study, self.folder = study, folder

    def run(self, jobs, inputs):
        waiting = list(jobs)
        while waiting:
            store = Store.open(self.folder)
            ready = check(make_plan(self.study))
            # The last job that can be done, so that the order is another one.
            job = next(job for job in reversed(waiting) if set(job.needs) <= stored_keys(ready, store))
            waiting.remove(job)
            yield from InProcess().run([pickle.loads(pickle.dumps(job))], JobInputs(ready, store))
            store.close()


def test_another_executor_does_the_same_from_keys_alone(study, whole, tmp_path):
    demur.run(study, tmp_path / "run", executor=FromKeysAlone(study, tmp_path / "run"))
    assert contents(tmp_path / "run") == whole


class Stopped:
    """Stops before the record of some number."""

    name = "stopped"

    def __init__(self, after):
        self.after = after

    def run(self, jobs, inputs):
        for number, record in enumerate(InProcess().run(jobs, inputs)):
            if number == self.after:
                raise KeyboardInterrupt
            yield record


@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.soak)])
def test_a_run_that_is_stopped_between_any_two_records_ends_as_an_uninterrupted_one(study, whole, tmp_path, step):
    for after in itertools.count(0, step):
        folder = tmp_path / str(after)
        try:
            demur.run(study, folder, executor=Stopped(after))
            break
        except KeyboardInterrupt:
            demur.run(study, folder)
        assert contents(folder) == whole, after
    # Two loads, two directions, two measurements, the control, and two batches at least.
    assert after >= 9


def loads(steps):
    return [step.checkpoint for step in steps if step.action == "load"]


def held_at_once(steps):
    held, most = set(), 0
    for step in steps:
        if step.action == "load":
            held.add(step.checkpoint)
        elif step.action == "free":
            held.remove(step.checkpoint)
        else:
            assert set(step.job.weights) <= held
        most = max(most, len(held))
    assert not held
    return most


def test_extraction_is_no_barrier(study, tmp_path):
    ready, store = begin(study, tmp_path / "all")
    jobs = pending_jobs(ready, store)
    assert loads(order_jobs(jobs, (), together=True)) == ["base", "chat"]
    assert loads(order_jobs(jobs, (), together=False)) == ["base", "chat", "base"]
    # Where only the directions of chat are used, chat is read and answers, then base; each is loaded once.
    only = [spec.model_copy(update={"sources": ["chat"]}) for spec in study.interventions]
    limited = study.model_copy(update={"interventions": only})
    ready, other = begin(limited, tmp_path / "limited")
    jobs = pending_jobs(ready, other)
    steps = order_jobs(jobs, (), together=False)
    assert loads(steps) == ["chat", "base"]
    order = [step.job.key for step in steps if step.job is not None]
    assert order.index("generate chat") < order.index("extract base/user-assistant")
    store.close()
    other.close()


@pytest.mark.parametrize("together", [True, False])
def test_the_order_gives_every_job_its_inputs_with_few_loads(together):
    chance = random.Random(0)
    for _ in range(300):
        names = [f"c{i}" for i in range(chance.randint(1, 5))]
        read = [name for name in names if chance.random() < 0.7]
        stored = {direction_key(name) for name in names if name not in read}
        jobs = [ExtractJob(f"{name}/p", name, (name,)) for name in read]
        jobs += [ControlJob(f"random-{name}", "random", name, 0) for name in names if chance.random() < 0.5]
        null = [job.direction for job in jobs if isinstance(job, ControlJob)]
        for name in names:
            if chance.random() < 0.8:
                used = tuple(one for one in (*names, *null) if chance.random() < 0.5)
                jobs.append(GenerateJob(name, ((f"{name}|none", (0,)),), used))
                asked = AskedMeasurement("loss")
                jobs.append(MeasureJob(asked, f"{name}|add", (f"{name}/p",), (name,), used, ((f"{name}|add", f"{name}|none"),)))
        steps, there = order_jobs(jobs, stored, together=together), set(stored)
        for step in steps:
            if step.job is not None:
                assert set(step.job.needs) <= there
                there |= set(step.job.gives)
        assert sorted(step.job.key for step in steps if step.job is not None) == sorted(job.key for job in jobs)
        needed = {name for job in jobs for name in job.weights}
        assert len(loads(steps)) <= (len(needed) if together else max(0, 2 * len(needed) - 1))
        assert held_at_once(steps) <= (len(needed) if together else 1)


def test_an_input_that_nobody_gives_is_named():
    with pytest.raises(WorkError, match="the job 'generate base' needs direction chat, which is not stored"):
        order_jobs([GenerateJob("base", (("cell", (0,)),), ("chat",))], (), together=True)


def test_checkpoints_that_do_not_fit_together_are_loaded_one_at_a_time(study, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(memory_budget, "available", lambda device: 0)
    names = []

    def counted(*args, name, **kwargs):
        names.append(name)
        return load_checkpoint(*args, name=name, **kwargs)

    monkeypatch.setattr("demur.runs.execution.load_checkpoint", counted)
    demur.run(study, tmp_path / "run")
    assert names == ["base", "chat", "base"]
    assert contents(tmp_path / "run") == whole


ASKED = [AskedMeasurement(name) for name in ("by-layer", "loss", "equivalence")]


def test_loss_and_equivalence_are_measurements_of_a_run(study, whole, tmp_path):
    folder = tmp_path / "run"
    demur.run(study, folder)
    ready, store = check(make_plan(study)), Store.open(folder)
    jobs = pending_jobs(ready, store, ASKED)
    assert {type(job) for job in jobs} == {MeasureJob}
    # Adding measurements generates nothing and reads no direction anew.
    carry_out(ready, store, InProcess(), measurements=ASKED)
    assert pending_jobs(ready, store, ASKED) == []
    losses = {one.subject: one.record.facts for one in store.measurements() if one.name == "loss"}
    assert set(losses) == {cell.key for cell in store.cells()}
    checkpoint = demur.load_checkpoint(study.checkpoints["chat"].model, name="chat")
    prompt = demur.prompt_format("native", checkpoint)
    key = next(
        cell.key for cell in store.cells() if cell.target == "chat" and cell.direction == "base" and cell.action == "ablate"
    )
    written = [
        demur.Completion(row.instruction, row.text, row.token_ids) for row in store.completions("chat/native|harmful|none")
    ]
    edit = demur.ablate(store.direction("base"))
    plain_loss, edited = demur.completion_losses(checkpoint, written, prompt, [None, edit])
    assert (losses[key]["unedited_loss"], losses[key]["loss"]) == (plain_loss.mean, edited.mean)
    assert losses["chat/native|harmful|none"]["loss"] == plain_loss.mean
    same = {one.subject: one.record.facts for one in store.measurements() if one.name == "equivalence"}
    assert same["chat/native"]["chat"]["effect"] == demur.equivalence(checkpoint, store.direction("chat")).effect
    summary = Run(store).summary()
    assert {one["name"] for one in summary["measurements"]} == {"by-layer", "loss", "equivalence"}
    (mine,) = [one for one in summary["measurements"] if (one["name"], one["subject"]) == ("loss", key)]
    assert mine["summary"]["change"] == pytest.approx(edited.mean - plain_loss.mean)
    assert json.loads(json.dumps(summary["measurements"])) == summary["measurements"]
    assert summary["cells"] == whole["summary"]["cells"]
    assert summary["by_layer"] == whole["summary"]["by_layer"]
    store.close()


class GapSettings(BaseModel):
    scale: float = 1.0


class Gap:
    """A measurement of one's own: how far two arms' directions lie apart."""

    name, version, subjects, settings = "gap", 3, "pair", GapSettings

    def measure(self, subject, settings):
        one, other = (arm.directions[0].vector.numpy() for arm in (subject.first, subject.second))
        assert subject.first.checkpoint.fingerprint != subject.second.checkpoint.fingerprint
        difference = settings.scale * (one - other)
        return MeasurementRecord({"gap": float(numpy.linalg.norm(difference))}, {"difference": difference})

    def summary(self, record):
        return {"gap": record.facts["gap"]}


class Fails:
    """Cannot measure one arm, and fails on the other."""

    name, version, subjects, settings = "fails", 1, "arm", None

    def measure(self, subject, settings):
        if subject.name.startswith("base"):
            raise InputError("base has nothing to measure")
        raise WorkError("no memory was left")

    def summary(self, record):
        return {}


@pytest.fixture
def own_parts():
    parts = registry("measurement")
    for part in (Gap, Fails):
        parts.register(part.name, part)
    yield
    for part in (Gap, Fails):
        parts.unregister(part.name)


def test_a_pair_is_measured_with_both_loaded_once_for_each_setting(study, own_parts, tmp_path, monkeypatch):
    monkeypatch.setattr(memory_budget, "available", lambda device: 0)
    ready, store = begin(study, tmp_path)
    twice = AskedMeasurement("gap", canonical(GapSettings(scale=2)))
    for asked in ([AskedMeasurement("gap", canonical(GapSettings()))], [twice], [twice]):
        carry_out(ready, store, InProcess(), measurements=asked)
    one, other = [each for each in store.measurements() if each.name == "gap"]
    assert (one.subject, one.settings, other.settings) == (
        "base/user-assistant with chat/native",
        '{"scale":1.0}',
        '{"scale":2.0}',
    )
    assert other.record.facts["gap"] == pytest.approx(2 * one.record.facts["gap"])
    assert numpy.allclose(other.record.arrays["difference"], 2 * one.record.arrays["difference"])
    # Another version of the method measures anew, in place of the old record.
    monkeypatch.setattr(Gap, "version", 4)
    assert [job.subject for job in pending_jobs(ready, store, [twice])] == [one.subject]
    carry_out(ready, store, InProcess(), measurements=[twice])
    assert [each.version for each in store.measurements() if each.name == "gap"] == [3, 4]
    store.close()


def test_a_measurement_that_fails_is_stated_and_stops_nothing(study, own_parts, tmp_path):
    ready, store = begin(study, tmp_path)
    asked = [AskedMeasurement("fails")]
    carry_out(ready, store, InProcess(), measurements=asked)
    assert store.unmeasured() == [
        UnmeasuredSubject("fails", "base/user-assistant", "{}", 1, "base has nothing to measure"),
        UnmeasuredSubject("fails", "chat/native", "{}", 1, "no memory was left"),
    ]
    finish_run = Run(store)
    finish_run.judge_stored()
    assert warnings_of(finish_run.summary()) == [
        "The measurement fails could not be made of base/user-assistant: base has nothing to measure.",
        "The measurement fails could not be made of chat/native: no memory was left.",
    ]
    assert len(store.completions()) == 66
    # Both are tried again: what is refused here may be possible on another device.
    assert [job.subject for job in pending_jobs(ready, store, asked)] == ["base/user-assistant", "chat/native"]
    # A study that no longer asks for it hears no more of it.
    store.remember("added_measurements", [])
    assert warnings_of(finish_run.summary()) == []
    store.close()


class Careless(Fails):
    """Its summary raises; measured of pairs or of something that does not exist in classes below."""

    name = "careless"

    def measure(self, subject, settings):
        return MeasurementRecord({"found": 1.0}, {})

    def summary(self, record):
        raise KeyError("nothing")


class OfEveryone(Careless):
    name, subjects = "of-everyone", "everyone"


def test_a_summary_says_what_is_asked_for_now_and_survives_a_careless_measurement(study, own_parts, tmp_path):
    registry("measurement").register("careless", Careless)
    text = study.model_copy(update={"measurements": [MeasurementSpec(name="careless"), MeasurementSpec(name="fails")]})
    with demur.run(text, tmp_path / "run") as run:
        warned = [said for said in warnings_of(run.summary()) if "careless" in said]
        assert warned[0] == "The measurement careless of base/user-assistant could not be summarised: KeyError: 'nothing'."
        assert {one["name"]: one["summary"] for one in run.summary()["measurements"]} == {"careless": {"found": 1.0}}
        assert len(warnings_of(run.summary())) == 4
    registry("measurement").unregister("careless")
    with demur.run(study, tmp_path / "run") as run:
        assert warnings_of(run.summary()) == []
        assert {one["name"] for one in run.summary()["measurements"]} == {"by-layer"}


def test_a_measurement_of_unknown_subjects_is_refused_and_pairs_need_two_checkpoints(study, own_parts, tmp_path):
    with pytest.raises(InputError, match="says 'everyone' for 'subjects'; expected one of arm, pair, cell"):
        measurement(f"{__name__}:OfEveryone")
    alone = study.model_copy(
        update={"checkpoints": {"base": study.checkpoints["base"]}, "measurements": [MeasurementSpec(name="gap")]}
    )
    said = "The measurement gap compares two checkpoints, and this study has one, so it is not made."
    assert said in look_ahead(alone).warnings
    with demur.run(alone, tmp_path / "run") as run:
        assert warnings_of(run.summary()) == [said]


def test_separations_of_another_version_are_not_drawn(study, tmp_path, monkeypatch):
    with demur.run(study, tmp_path / "run") as run:
        assert run.summary()["by_layer"] is not None
        monkeypatch.setattr(SeparationByLayer, "version", 2)
        assert run.summary()["by_layer"] is None


def test_an_edit_without_a_direction_is_recorded_where_it_acts(study):
    registry("edit").register("damp", "tests.study_parts:Damp")
    spec = InterventionSpec(kind="damp", coefficient=1.0)
    plan = make_plan(study.model_copy(update={"interventions": [spec]}))
    found = {planned_cell(study, cell).sites for cell in plan.cells if cell.intervention is not None}
    registry("edit").unregister("damp")
    assert found == {("all",)}


class Chatty:
    """A prompt format of one's own that writes the chat template out."""

    adds_special_tokens = False

    def template(self, tokenizer):
        return NativeTemplate().template(tokenizer)


def test_a_date_in_any_chat_template_stays_as_the_run_first_had_it(tmp_path, monkeypatch):
    path = make_study(tmp_path)
    tokenizer = tiny_tokenizer(chat_template="{{ strftime_now('%d') }} " + CHAT)
    tokenizer.save_pretrained(tmp_path / "chat")
    study = demur.load_study(path, [f'checkpoints.chat.prompts=["{__name__}:Chatty"]'])
    demur.run(study, tmp_path / "run").close()
    rendered = NativeTemplate.template
    monkeypatch.setattr(NativeTemplate, "template", lambda self, tokenizer: "99" + rendered(self, tokenizer)[2:])
    store = Store.open(tmp_path / "run")
    with store._transaction() as db:
        db.execute("DELETE FROM completions WHERE cell LIKE 'chat%none'")
    store.close()
    with demur.run(study, tmp_path / "run") as run:
        assert not run.manifest().arms[1].template.startswith("99")


def test_completions_of_one_batch_are_one_record(study, tmp_path):
    ready, store = begin(study, tmp_path)
    kinds = [type(record).__name__ for record in InProcess().run(pending_jobs(ready, store)[:1], JobInputs(ready, store))]
    assert kinds == ["CheckpointLoaded", "StoredMeans", "StoredMeans", "DirectionMade", "StoredMeasurement"]
    # Nothing was stored: only the driver does that.
    assert store.directions() == []
    assert store.manifest().checkpoints == {}
    assert store.measurements() == []
    store.close()
