"""The jobs of one shard: those that make its own part of the run, and those whose results these need.

A shard needs nothing of other shards, so they can run in any order. It makes the directions and baselines that its jobs need,
although another shard makes them too.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from demur.runs.conditions.gate_jobs import GateJob
from demur.runs.controls.control_jobs import ArmControlsJob
from demur.runs.extracting.cell_needs import cell_key, gates_of, means_of
from demur.runs.jobs import ExtractJob, GenerateJob, Job, MeasureJob
from demur.runs.sharding.shard import ShardWork
from demur.study.plan import Plan, directions_of, main_directions


def shard_jobs(jobs: Sequence[Job], plan: Plan, work: ShardWork) -> list[Job]:
    """The jobs of a shard.

    Args:
        jobs: all jobs that are left of the study, in the order of `pending_jobs`.
        plan: the plan of the study.
        work: the shard's part of the work.

    Returns:
        Its jobs, in the same order.
    """
    chosen = {index: own for index, job in enumerate(jobs) if (own := _own(job, plan, work)) is not None}
    while lacking := _lacking(chosen.values(), jobs):
        for index, job in enumerate(jobs):
            if not lacking.isdisjoint(job.gives):
                chosen[index] = _with(job, chosen.get(index), lacking, plan)
    return [chosen[index] for index in sorted(chosen)]


def _lacking(chosen: Iterable[Job], jobs: Sequence[Job]) -> set[str]:
    """Keys that the chosen jobs need and that only other jobs give. What no job gives is stored already."""
    found = list(chosen)
    made = {key for job in found for key in job.gives}
    return {key for job in found for key in job.needs} & {key for job in jobs for key in job.gives} - made


def _own(job: Job, plan: Plan, work: ShardWork) -> Job | None:
    """The part of a job that belongs to the shard."""
    if isinstance(job, GenerateJob):
        return _with_cells(job, work.cells, plan)
    if isinstance(job, ExtractJob | ArmControlsJob | GateJob):
        return job if job.arm in work.arms else None
    if isinstance(job, MeasureJob):
        if job.cells:
            return _with_measured(job, work.cells, plan)
        return job if job.subject in (work.arms if len(job.arms) == 1 else work.pairs) else None
    arm = next(one.arm.name for one in plan.directions if one.name == job.direction)
    return job if arm in work.arms else None


def _with(job: Job, chosen: Job | None, lacking: Collection[str], plan: Plan) -> Job:
    """A job with what other jobs of the shard need of it."""
    if isinstance(job, GenerateJob):
        own = set() if chosen is None else set(chosen.gives)
        keys = {cell for cell, _ in job.rows if cell_key(cell) in own or cell_key(cell) in lacking}
        found = _with_cells(job, keys, plan)
        assert found is not None, "the job gives what is lacking"
        return found
    # The arm is measured by the shard that it belongs to.
    return replace(job, measurements=()) if isinstance(job, ExtractJob) else job


def _with_cells(job: GenerateJob, keys: Collection[str], plan: Plan) -> GenerateJob | None:
    rows = tuple((cell, positions) for cell, positions in job.rows if cell in keys)
    names = {cell for cell, _ in rows}
    cells = [cell for cell in plan.of(job.checkpoint) if cell.key in names]
    directions = tuple(dict.fromkeys(name for cell in cells for name in directions_of(plan, cell)))
    means = tuple(dict.fromkeys(name for cell in cells for name in means_of(cell)))
    gates = tuple(dict.fromkeys(name for cell in cells for name in gates_of(cell)))
    return replace(job, rows=rows, directions=directions, means=means, gates=gates) if rows else None


def _with_measured(job: MeasureJob, keys: Collection[str], plan: Plan) -> MeasureJob | None:
    measured = tuple(pair for pair in job.cells if pair[0] in keys)
    names = {cell for cell, _ in measured}
    cells = [cell for cell in (*plan.cells, *plan.null_cells) if cell.key in names]
    own = [name for cell in cells for name in directions_of(plan, cell)]
    own += [name for arm in plan.arms if arm.name in job.arms for name in main_directions(plan, arm)]
    means = tuple(dict.fromkeys(name for cell in cells for name in means_of(cell)))
    gates = tuple(dict.fromkeys(name for cell in cells for name in gates_of(cell)))
    reads = tuple(dict.fromkeys(own))
    return replace(job, cells=measured, directions=reads, means=means, gates=gates) if measured else None
