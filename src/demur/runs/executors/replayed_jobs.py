"""Replays jobs on any number of workers that may die, without running them: how long it would take, and how much is idle.

The jobs are given out by the same `JobQueue` as in a run, so that its rule can be tried on a thousand workers.
"""

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from demur.runs.executors.job_queue import Assignment, JobQueue, Memory, split_generations
from demur.runs.executors.pooled_jobs import ATTEMPTS
from demur.runs.jobs import GenerateJob, Job
from demur.runs.rows import StoredCompletion


@dataclass(frozen=True)
class Costs:
    """What work costs.

    Attributes:
        job: seconds of a job once its checkpoints are loaded. A job that is done again may have fewer rows.
        load: seconds to load each checkpoint.
        bytes: bytes of each checkpoint in memory.
        start: seconds until a worker that is started is ready.
    """

    job: Callable[[Job], float]
    load: Mapping[str, float]
    bytes: Mapping[str, int]
    start: float = 0.0


@dataclass(frozen=True)
class Replayed:
    """How the jobs went.

    Attributes:
        seconds: until the last job was done.
        idle: the share of the workers' time in which they had nothing to do.
        loads: how often weights were read.
        deaths: how many workers died.
        failed: how many jobs were begun too often.
        left: how many jobs could not be done, because a job whose outputs they need failed.
    """

    seconds: float
    idle: float
    loads: int
    deaths: int
    failed: int
    left: int


@dataclass
class _Worker:
    memory: Memory
    task: Assignment | None = None
    begun: float = 0.0
    loading: float = 0.0
    busy: float = 0.0


def replay(
    jobs: Sequence[Job],
    stored: Collection[str],
    costs: Costs,
    *,
    workers: int,
    memory: int,
    lifetime: float = float("inf"),
    attempts: int = ATTEMPTS,
    seed: int = 0,
) -> Replayed:
    """Replay jobs.

    Args:
        jobs: the jobs, in the order of `pending_jobs`.
        stored: keys of what is stored already.
        costs: what work costs.
        workers: how many workers there are.
        memory: bytes of weights that one worker may hold.
        lifetime: after how many seconds a worker dies on average, at any moment of its work alike; infinite for never.
        attempts: how often a job is begun at most.
        seed: draws the deaths.

    Returns:
        How the jobs went.
    """
    queue = JobQueue(split_generations(jobs, workers), stored, costs.bytes, attempts=attempts)
    crew, chance = [_Worker(Memory(memory)) for _ in range(workers)], random.Random(seed)
    # When something happens, to whom, and whether it is the worker's death. The second number keeps the order of equal times.
    events: list[tuple[float, int, bool]] = [(costs.start, number, False) for number in range(workers)]
    free: list[int] = []
    now, loads, deaths, asked = 0.0, 0, 0, -1
    while events and queue.left:
        now, number, died = heappop(events)
        _end(crew[number], queue, costs, now, died=died)
        if died:
            deaths += 1
            heappush(events, (now + costs.start, number, False))
        else:
            free.append(number)
        # A worker that had no job is asked again only if there may be one now.
        asking = [*free] if queue.version != asked else [] if died else [number]
        for one in asking:
            taken = _take(one, crew, queue, costs, now)
            if taken is None:
                continue
            free.remove(one)
            ends, new = taken
            loads += new
            death = now + chance.expovariate(1 / lifetime) if lifetime != float("inf") else float("inf")
            heappush(events, (min(ends, death), one, death < ends))
        asked = queue.version
    whole = workers * now
    idle = 1 - sum(worker.busy for worker in crew) / whole if whole else 0.0
    return Replayed(now, idle, loads, deaths, len(queue.failures), queue.left)


def _take(number: int, crew: Sequence[_Worker], queue: JobQueue, costs: Costs, now: float) -> tuple[float, int] | None:
    """Give a worker a job: when it would be done, and how many checkpoints are loaded. None if there is no job for it."""
    worker = crew[number]
    task = queue.take(worker.memory, (other.memory for other in crew if other is not worker))
    if task is None:
        return None
    worker.task, worker.begun = task, now
    worker.loading = sum(costs.load[name] for name in task.loads)
    return now + worker.loading + costs.job(task.job), len(task.loads)


def _end(worker: _Worker, queue: JobQueue, costs: Costs, now: float, *, died: bool) -> None:
    """A worker's job is done, or it died at it. Completions that were made before a death are stored, everything else is lost."""
    task = worker.task
    if task is None:
        return  # it has just started
    worker.busy += now - worker.begun
    worker.task = None
    if not died:
        queue.done(task.number)
        return
    if isinstance(task.job, GenerateJob):
        rows = [(cell, at) for cell, positions in task.job.rows for at in positions]
        share = max(0.0, now - worker.begun - worker.loading) / max(costs.job(task.job), 1e-9)
        queue.made(task.number, [StoredCompletion(cell, at, "", "", ()) for cell, at in rows[: int(len(rows) * share)]])
    queue.lost(task.number, "died")
    worker.memory.held = []
