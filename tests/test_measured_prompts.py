"""What measurements add to the work of a plan: the prompts that they run through its checkpoints, counted beforehand."""

from collections import Counter
from contextlib import contextmanager
from dataclasses import replace

import pytest

import demur
from demur.measurements.exact_refusal.sampling import PROMPTS_A_ROW
from demur.measurements.measurement import PlannedSubject, measurement
from demur.study.machines.measured_prompts import measured_prompts
from demur.study.plan import make_plan
from demur.study.plan_outlook import look_ahead
from demur.study.study_files import load_study
from tests.pairs import mlp_of, taught_pair
from tests.test_patching import QUICK, pair_subject
from tests.tiny_study import make_study

MEASURED = ('measurements=["by-layer", "direction-agreement", {name="refusal-probability", instructions=2}]', "controls.random=4")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("study"))


def test_a_plan_counts_the_prompts_that_the_run_then_reports(path, tmp_path):
    study = load_study(path, MEASURED)
    reported = Counter()

    @contextmanager
    def phases(name, _total):
        yield lambda done: reported.update({name: done})

    demur.run(study, tmp_path / "run", phases=phases).close()
    plan = make_plan(study)
    for name in study.checkpoints:
        found = measured_prompts(plan, name, None)
        (arm,) = plan.arms_of(name)
        assert found.arm == reported[f"directions of {arm.name}"] - 8  # the training instructions
        assert found.cell == PROMPTS_A_ROW * reported[f"refusal-probability of {arm.name}"] > 0
        (pair,) = [done for phase, done in reported.items() if phase.startswith("direction-agreement")]
        assert found.pair == pair / 2
        assert found.all == found.arm + found.cell + found.pair


def test_measurements_take_time_on_one_device_and_on_workers(path):
    less, more = (look_ahead(load_study(path, changes), "a10", 2) for changes in (["measurements=[]"], MEASURED[:1]))
    assert more.time.low > less.time.low
    assert more.workers.low > less.workers.low


def test_a_measurement_that_does_not_say_counts_as_none(path):
    plan = make_plan(load_study(path, ['measurements=["equivalence"]']))
    assert measured_prompts(plan, "chat", 3).all == 0


@pytest.mark.parametrize(
    "asked",
    [
        {"name": "attribution", "tested": 2, "counts": [2]},
        {"name": "difference-lens", "tokens": 3, "layers": [1]},
        {"name": "divergence", "instructions": 4, "max_new_tokens": 1, "ablation": False},
    ],
)
def test_other_measurements_of_a_pair_count_about_the_prompts_that_they_run(asked):
    base, chat = taught_pair(mlp_of(2), steps=2)
    own = dict(asked)
    found = measurement(own.pop("name"))
    shared = {} if "ablation" in own else {**QUICK, "instructions": 4}
    shared.pop("completions", None)
    settings, rows = found.settings(**{**shared, **own}), [0]

    def count(_module, _args, given):
        # A forward pass over several tokens is one over prompts, in three blocks. A block that is skipped runs no attention.
        hidden = given["hidden_states"]
        rows[0] += len(hidden) / 3 if hidden.shape[1] > 1 else 0

    for one in (base, chat):
        for block in one.model.model.layers:
            block.self_attn.register_forward_pre_hook(count, with_kwargs=True)
    subject = pair_subject(base, chat)
    found.measure(replace(subject, first=trained(subject.first), second=trained(subject.second)), settings)
    planned = found.prompts(settings, PlannedSubject({"harmful": 8}, 16, 4))
    # Gradients and continuations count more than a pass, and self-checks are not counted.
    assert rows[0] / 2 / 1.6 < planned < 2.2 * rows[0] / 2


def trained(arm):
    """An arm with training instructions."""
    return replace(arm, train=arm.held_out)


@pytest.mark.soak
@pytest.mark.parametrize("name", ["patching", "weight-swaps"])
def test_measurements_of_a_pair_count_the_runs_that_they_make(path, tmp_path, name):
    study = load_study(path, [f'measurements=[{{name="{name}", instructions=2}}]', 'checkpoints.chat.prompts=["user-assistant"]'])
    with demur.run(study, tmp_path / "run") as run:
        (made,) = run.summary()["diff"]
    runs = 1 + sum(len(curve["runs"]) for curve in made["curves"] if curve["target"] == "base")
    assert measured_prompts(make_plan(study), "base", 3).pair == pytest.approx(PROMPTS_A_ROW * 2 * runs, rel=0.1)
