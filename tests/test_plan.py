"""What a study comes to: every direction on every checkpoint, controls beside them, as few loads as memory allows."""

from demur.study.load_order import loads, order_steps
from demur.study.plan import make_plan
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
    names = ["before", "after", "random-1", "random-2"]
    assert [direction.name for direction in plan.directions] == names
    for target in ("before", "after"):
        assert keys(plan, target, "harmful")[0] == ("none", None)
        for kind in ("ablate", "add"):
            assert [name for what, name in keys(plan, target, "harmful") if what == kind] == names
        assert [name for what, name in keys(plan, target, "harmless") if what == "add"] == names
    assert len({cell.key for cell in plan.cells}) == len(plan.cells)


def test_controls_stand_beside_each_source_and_follow_its_doses():
    plan = make_plan(load_study("llama-7b"))
    beside = {d.name: d.arm.checkpoint for d in plan.directions if d.control}
    assert beside == {"random-1": "base", "random-2": "chat"} == {d.name: d.beside for d in plan.directions if d.control}
    doses = {
        (cell.direction.name, cell.intervention.coefficient)
        for cell in plan.cells
        if cell.intervention is not None and cell.intervention.kind == "add" and cell.instructions == "harmful"
    }
    assert doses == {("base", 12.0), ("random-1", 12.0), ("chat", 4.0), ("random-2", 4.0)}


def test_several_prompts_are_several_arms_and_layers_several_directions():
    plan = make_plan(load_study("pythia-12b"))
    assert [arm.name for arm in plan.arms] == ["base/pythia", "base/vicuna"]
    assert [d.name for d in plan.directions] == ["base.pythia", "base.vicuna", "random-1", "random-2"]
    layered = make_plan(make_study(changed(direction={"layers": [1, 2]}, interventions=[{"kind": "ablate"}])))
    assert [d.name for d in layered.directions][:2] == ["base.layer1", "base.layer2"]
    assert {d.name for d in layered.directions if d.control} == {
        "random-1.layer1", "random-1.layer2", "random-2.layer1", "random-2.layer2",
    }  # fmt: skip


def test_loads_are_as_few_as_memory_allows():
    names, sizes = ["a", "b", "c"], {"a": 10, "b": 10, "c": 10}
    assert loads(order_steps(names, names, sizes, 30)) == 3
    assert loads(order_steps(names, names, sizes, 29)) == 5
    assert loads(order_steps(names, names, {**sizes, "b": None}, 10**9)) == 5
    assert loads(order_steps([], ["b"], sizes, 0)) == 1
    assert loads(order_steps([], [], sizes, 0)) == 0


def test_directions_come_first_and_one_checkpoint_is_held_at_a_time():
    names, sizes = ["a", "b", "c"], {"a": 10, "b": 10, "c": 10}
    held, most, generated, extracted = set(), 0, [], []
    for step in order_steps(names, names, sizes, 0):
        if step.action == "load":
            held.add(step.checkpoint)
        elif step.action == "free":
            held.remove(step.checkpoint)
        else:
            assert step.checkpoint in held
            (extracted if step.action == "extract" else generated).append(step.checkpoint)
            assert step.action == "extract" or extracted == names
        most = max(most, len(held))
    assert (most, sorted(generated), held) == (1, names, set())
