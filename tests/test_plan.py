"""What a study comes to: every direction on every checkpoint, controls beside them, as few loads as memory allows."""

from demur.study.load_order import loads, most_at_once, order_jobs
from demur.study.plan import make_plan
from demur.study.planned_tasks import planned_tasks
from demur.study.spec import make_study
from demur.study.study_files import load_study
from tests.test_study import changed


def keys(plan, target, label):
    return [
        (c.intervention.kind if c.intervention else "none", c.direction.name if c.direction else None)
        for c in plan.cells
        if (c.target.checkpoint, c.instructions) == (target, label)
    ]


def test_the_demo_is_the_whole_matrix():
    plan = make_plan(load_study("demo"))
    kinds = ("random", "shuffled-labels")
    names = ["before", "after", *(f"{kind}-{number}" for kind in kinds for number in range(1, 11))]
    assert [direction.name for direction in plan.directions] == names
    # Null directions have no completions; the probability of a refusal is measured with them.
    answered = ["before", "after"]
    for target in ("before", "after"):
        assert keys(plan, target, "harmful")[0] == ("none", None)
        assert [name for what, name in keys(plan, target, "harmful") if what == "ablate"] == answered
        assert [name for what, name in keys(plan, target, "harmless") if what == "add"] == answered
        affine = [name for what, name in keys(plan, target, "harmful") if what == "affine"]
        assert affine == (answered if target == "after" else [])
    assert {cell.direction.name for cell in plan.null_cells} == set(names) - set(answered)
    assert len({cell.key for cell in plan.cells}) == len(plan.cells)


def test_controls_stand_beside_each_source_and_follow_its_doses():
    plan = make_plan(load_study("llama-7b"))
    beside = {d.name: d.arm.checkpoint for d in plan.directions if d.control}
    # No dose has the unit `raw`, so five null directions are for all arms.
    assert beside == {f"random-{number}": ("chat", "base")[number % 2] for number in range(1, 6)}
    assert beside == {d.name: d.beside for d in plan.directions if d.control}
    doses = {
        (cell.direction.name, cell.intervention.coefficient)
        for cell in plan.cells
        if cell.intervention is not None and cell.intervention.kind == "add" and cell.instructions == "harmful"
    }
    assert doses == {
        (name, {"base": 12.0, "chat": 4.0}[source]) for name, source in {"base": "base", "chat": "chat", **beside}.items()
    }


def test_several_prompts_are_several_arms_and_layers_several_directions():
    plan = make_plan(load_study("pythia-12b"))
    assert [arm.name for arm in plan.arms] == ["base/pythia", "base/vicuna"]
    # Its doses have the unit `raw`, so each arm has five null directions of its own norm.
    assert [d.name for d in plan.directions] == ["base.pythia", "base.vicuna", *(f"random-{number}" for number in range(1, 11))]
    layered = make_plan(make_study(changed(direction={"layers": [1, 2]}, interventions=[{"kind": "ablate"}])))
    assert [d.name for d in layered.directions][:2] == ["base.layer1", "base.layer2"]
    assert {d.name for d in layered.directions if d.control} == {
        f"random-{number}.layer{layer}" for number in range(1, 6) for layer in (1, 2)
    }


NAMES = ["a", "b", "c"]


def order(study, *, together):
    return order_jobs(planned_tasks(make_plan(study)), (), together=together)


def lineage(**edit):
    checkpoints = {name: {"model": name, "prompts": ["chatml"]} for name in NAMES}
    return make_study({**changed(interventions=[{"kind": "ablate", **edit}] if edit else []), "checkpoints": checkpoints})


def test_loads_are_as_few_as_the_directions_that_are_used_allow():
    everything = lineage(on=["harmful"])
    assert loads(order(everything, together=True)) == 3
    assert loads(order(everything, together=False)) == 5
    # Without edits, and where each is edited with what is loaded before it, nothing is loaded twice.
    assert loads(order(lineage(), together=False)) == 3
    assert loads(order(lineage(sources=["a"]), together=False)) == 3


def test_directions_come_before_what_uses_them_and_one_checkpoint_is_held_at_a_time():
    steps = order(lineage(on=["harmful"]), together=False)
    assert most_at_once(steps, dict.fromkeys(NAMES, 1)) == 1
    done = [step.job.key for step in steps if step.job is not None and step.job.weights]
    assert [key for key in done if key.startswith("extract")] == done[:3] == [f"extract {name}" for name in NAMES]
    assert sorted(done[3:]) == [f"generate {name}" for name in NAMES]


def test_the_checkpoint_that_was_loaded_last_is_freed_first_where_all_fit():
    steps = order(lineage(on=["harmful"]), together=True)
    assert most_at_once(steps, dict.fromkeys(NAMES, 1)) == 3
    assert [step.checkpoint for step in steps if step.action == "free"] == ["c", "b", "a"]
