"""The work of a plan as tasks with inputs and outputs, so that `load_order` orders a plan as it orders a run."""

from dataclasses import dataclass
from itertools import combinations

from demur.measurements.measurement import measurement, measures_pair, reference_of
from demur.study.plan import Plan, directions_of


@dataclass(frozen=True)
class PlannedTask:
    """Work with loaded checkpoints. A run splits it into jobs; those of one task need the same weights.

    Attributes:
        key: the name of the task, such as `extract base`.
        weights: the checkpoints that must be loaded.
        needs: keys of its inputs, which must exist before it can run.
        gives: keys of its outputs.
    """

    key: str
    weights: tuple[str, ...]
    needs: tuple[str, ...]
    gives: tuple[str, ...]


def planned_tasks(plan: Plan) -> list[PlannedTask]:
    """The tasks of a plan, in the order in which `demur.runs.jobs.pending_jobs` lists the jobs of a run.

    Args:
        plan: the plan.

    Returns:
        Extractions, controls, generations, measurements of cells, then those of pairs. Measurements of arms are part of the
        extractions, and so are the controls that need activations.
    """
    names = list(plan.study.checkpoints)
    own = {name: tuple(one.name for one in plan.directions if one.arm.checkpoint == name and one.own) for name in names}
    # The controls that need activations are made while these are in memory.
    read = {
        name: tuple(one.name for one in plan.directions if one.arm.checkpoint == name and one.from_activations) for name in names
    }
    found = [PlannedTask(f"extract {name}", (name,), (), (*own[name], *read[name])) for name in names]
    for one in plan.directions:
        if one.beside is not None and not one.from_activations:
            found.append(PlannedTask(f"control {one.name}", (), (one.beside,), (one.name,)))
    used = {name: tuple(dict.fromkeys(read for cell in plan.of(name) for read in directions_of(plan, cell))) for name in names}
    found += [PlannedTask(f"generate {name}", (name,), (*used[name], *own[name]), (cells_key(name),)) for name in names]
    cells = [one for one in plan.study.measurements if measurement(one.name).subjects == "cell"]
    others = {reference_of(measurement(one.name), one.parsed(), names) for one in cells} - {None}
    if cells:
        for name in names:
            weights = (name, *(other for other in names if other in others and other != name))
            found.append(PlannedTask(f"measure {name}", weights, (*used[name], cells_key(name)), ()))
    pairs = dict.fromkeys((first.checkpoint, second.checkpoint) for first, second in combinations(plan.main_arms, 2))
    for a, b in pairs:
        if any(measures_pair(measurement(one.name), a, b) for one in plan.study.measurements):
            both = tuple(dict.fromkeys((a, b)))
            found.append(PlannedTask(f"compare {a} with {b}", both, tuple(dict.fromkeys((*own[a], *own[b]))), ()))
    return found


def cells_key(name: str) -> str:
    """The key of a checkpoint's completions, once all of its cells are done."""
    return f"cells of {name}"
