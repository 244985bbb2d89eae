"""The order in which one process does jobs: which checkpoint is loaded when, and what is done while it is in memory."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from demur.core.errors import WorkError
from demur.runs.jobs import Job


@dataclass(frozen=True)
class JobStep:
    """One thing to do: load a checkpoint, free it, or run a job.

    Attributes:
        action: `load`, `free` or `run`.
        checkpoint: the checkpoint to load or free.
        job: the job to run.
    """

    action: Literal["load", "free", "run"]
    checkpoint: str = ""
    job: Job | None = None


def order_jobs(jobs: Sequence[Job], stored: Collection[str], *, together: bool) -> list[JobStep]:
    """Put jobs in an order in which each has its inputs, with few loads.

    Nothing waits for all extractions: a checkpoint whose cells have their directions is generated from while it is in memory.
    Where the checkpoints do not fit into memory together, n of them take at most 2 n - 1 loads, plus those of pairs.

    Args:
        jobs: the jobs, in the order of the study.
        stored: keys of what is stored already.
        together: whether all checkpoints fit into memory at once.

    Returns:
        The steps. Every loaded checkpoint is freed.

    Raises:
        WorkError: where an input of a job is neither stored nor given by another job.
    """
    waiting, there, loaded = list(jobs), set(stored), list[str]()
    steps: list[JobStep] = []
    while waiting:
        for job in _reach(waiting, there, loaded):
            steps.append(JobStep("run", job=job))
            waiting.remove(job)
            there.update(job.gives)
        for name in [name for name in loaded if not together or not _of(waiting, name)]:
            steps.append(JobStep("free", name))
            loaded.remove(name)
        if waiting:
            for name in _next(waiting, there, loaded):
                steps.append(JobStep("load", name))
                loaded.append(name)
    return steps + [JobStep("free", name) for name in loaded]


def _reach(waiting: Sequence[Job], there: Collection[str], loaded: Collection[str]) -> list[Job]:
    """The waiting jobs that can be done with what is loaded, those that others of them make possible included, in order."""
    found: list[Job] = []
    known, left = set(there), list(waiting)
    while True:
        ready = next((job for job in left if set(job.weights) <= set(loaded) and set(job.needs) <= known), None)
        if ready is None:
            return found
        found.append(ready)
        left.remove(ready)
        known.update(ready.gives)


def _of(jobs: Iterable[Job], checkpoint: str) -> list[Job]:
    return [job for job in jobs if checkpoint in job.weights]


def _next(waiting: Sequence[Job], there: Collection[str], loaded: Sequence[str]) -> tuple[str, ...]:
    """The checkpoints to load next: one whose every job can then be done, else one that has a job that can, else a pair."""
    single = dict.fromkeys(job.weights[0] for job in waiting if len(job.weights) == 1)
    some: tuple[str, ...] = ()
    for name in single:
        own = [job for job in waiting if job.weights == (name,)]
        done = [job for job in _reach(waiting, there, [*loaded, name]) if job.weights == (name,)]
        if len(done) == len(own):
            return (name,)
        if done and not some:
            some = (name,)
    if some:
        return some
    for job in waiting:
        if len(job.weights) > 1 and set(job.needs) <= set(there):
            return tuple(name for name in job.weights if name not in loaded)
    missing = next(key for key in waiting[0].needs if key not in there)
    raise WorkError(
        f"{missing.replace(':', ' ', 1)} is missing, and {waiting[0].key!r} needs it; run the study again with --fresh"
    )
