"""The order in which one process does jobs: when each checkpoint is loaded, and which jobs run while it is in memory."""

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

    Generation does not wait for all extractions: completions of a loaded checkpoint are made as soon as their directions exist.
    Where the checkpoints do not fit into memory together, n of them take at most 2 n - 1 loads, plus those of pairs.

    Args:
        jobs: the jobs, in the order of the study.
        stored: keys of what is stored already.
        together: whether all checkpoints fit into memory at once.

    Returns:
        The steps. Every loaded checkpoint is freed.

    Raises:
        WorkError: if an input of a job is not stored and no job makes it.
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
    """The waiting jobs that can be done with the loaded checkpoints, in order. A job may need the results of earlier ones."""
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
    """The checkpoints to load next: one for which all jobs can then be done, else one for which some can, else a pair."""
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
        f"the job {waiting[0].key!r} needs {missing.replace(':', ' ', 1)}, which is not stored and which no job makes; run the "
        "study again with --fresh"
    )
