"""What a plan says of several workers: who does what, about how long it takes, how much is idle, and what does not fit.

A cell is never split, so the generation of a checkpoint has at most as many parts as the checkpoint has cells.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from demur.study import cost
from demur.study.cost import Job
from demur.study.machines.contiguous_parts import contiguous_parts
from demur.study.machines.measured_prompts import NO_PROMPTS, MeasuredPrompts
from demur.study.machines.worker_spread import Spread, TimedTask, Weights, spread
from demur.study.plan import Plan, PlannedCell
from demur.study.planned_tasks import PlannedTask, cells_key, planned_tasks

if TYPE_CHECKING:
    from demur.study.throughput import Rates


@dataclass(frozen=True)
class WorkersOutlook:
    """A study on several workers, each with a device of its own.

    Attributes:
        spread: who does what, with the longer times of the range.
        low: seconds until all is done, at least.
        high: seconds until all is done, at most.
        bytes: of each worker, the weights that it holds at once, with the KV cache and the temporary values of its largest batch
            where their size is known.
    """

    spread: Spread
    low: float
    high: float
    bytes: tuple[int, ...]


def worker_outlook(plan: Plan, jobs: Mapping[str, Job], rates: "Rates", kind: str, workers: int, budget: int) -> WorkersOutlook:
    """Spread a study over workers.

    Args:
        plan: the plan.
        jobs: what each checkpoint has to do, the selection of open settings included.
        rates: what one device does in a second.
        kind: `cpu` or `cuda`.
        workers: how many workers there are.
        budget: bytes of weights that one device may hold.

    Returns:
        The outlook.
    """
    found = []
    for end in (0, 1):
        tasks = [one.timed(plan, rates, kind, end) for one in _tasks(plan, jobs, workers)]
        weights = {
            name: Weights(job.size.bytes(plan.study.dtype, job.quantise), cost.load_seconds(job, plan.study)[end])
            for name, job in jobs.items()
        }
        found.append(spread(tasks, workers, weights, budget))
    needs = {name: cost.memory_of(job, plan.study, kind) for name, job in jobs.items()}
    extra = {name: need.total - need.weights for name, need in needs.items()}
    return WorkersOutlook(
        spread=found[1],
        low=cost.START_SECONDS + found[0].seconds,
        high=cost.START_SECONDS + found[1].seconds,
        bytes=tuple(day.bytes + max((extra[name] for name in day.loads), default=0) for day in found[1].workers),
    )


@dataclass(frozen=True)
class _Work:
    """A task; the work of each checkpoint in it that takes time; and the cells of a part."""

    task: PlannedTask
    jobs: tuple[Job, ...] = ()
    cells: int = 0

    def timed(self, plan: Plan, rates: "Rates", kind: str, end: int) -> TimedTask:
        taken = sum(cost.work_seconds(job, plan.study, rates, kind)[end] for job in self.jobs)
        return TimedTask(self.task.key, self.task.weights, self.task.needs, self.task.gives, taken, self.cells)


def _tasks(plan: Plan, jobs: Mapping[str, Job], workers: int) -> Iterator[_Work]:
    """The tasks of a plan with their work. Generations are cut into parts; what is selected comes before everything else."""
    selected = tuple(_selections(plan, jobs))
    yield from selected
    first = tuple(key for one in selected for key in one.task.gives)
    parts = {name: _parts(plan.of(name), workers, plan) for name in jobs}
    keys = {cells_key(name): tuple(_part_key(name, number) for number in range(len(parts[name]))) for name in jobs}
    compared = Counter(name for task in planned_tasks(plan) if task.key.startswith("compare ") for name in task.weights)
    for task in planned_tasks(plan):
        needs = tuple(key for need in task.needs for key in keys.get(need, (need,)))
        task = replace(task, needs=(*first, *needs))
        name = task.weights[0] if task.weights else ""
        if task.key == f"extract {name}":
            yield _Work(task, (replace(jobs[name], rows=0, measured=MeasuredPrompts(arm=jobs[name].measured.arm)),))
        elif task.key == f"generate {name}":
            for number, cells in enumerate(parts[name]):
                part = replace(task, gives=(_part_key(name, number),))
                yield _Work(part, (replace(jobs[name], rows=plan.rows(cells), read=0, measured=NO_PROMPTS),), len(cells))
        elif task.key == f"measure {name}":
            yield _Work(task, (_only(jobs[name], cell=jobs[name].measured.cell),))
        elif task.key.startswith("compare "):
            yield _Work(task, tuple(_only(jobs[one], pair=jobs[one].measured.pair / compared[one]) for one in task.weights))
        else:
            yield _Work(task)


def _only(job: Job, *, cell: float = 0.0, pair: float = 0.0) -> Job:
    """The measurements of a checkpoint's work."""
    return replace(job, rows=0, read=0, measured=MeasuredPrompts(cell=cell, pair=pair))


def _selections(plan: Plan, jobs: Mapping[str, Job]) -> Iterator[_Work]:
    """The selection of open settings, checkpoint by checkpoint: one process makes it, before the study's own work."""
    before: tuple[str, ...] = ()
    for name, job in jobs.items():
        rows = job.rows - plan.rows(plan.of(name))
        if rows > 0:
            done = (f"selection in {name}",)
            selecting = replace(job, rows=rows, read=0, measured=NO_PROMPTS)
            yield _Work(PlannedTask(f"select in {name}", (name,), before, done), (selecting,))
            before = done


def _parts(cells: Sequence[PlannedCell], workers: int, plan: Plan) -> list[tuple[PlannedCell, ...]]:
    """The cells of a checkpoint in at most so many parts of about the same number of rows, in their order."""
    parts = contiguous_parts([plan.rows((cell,)) for cell in cells], workers)
    return [tuple(cells[index] for index in part) for part in parts]


def _part_key(name: str, number: int) -> str:
    return f"{cells_key(name)}, part {number + 1}"
