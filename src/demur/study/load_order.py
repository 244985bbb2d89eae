"""Orders work so that few loads are needed: which checkpoint is loaded when, and what is done while it is in memory.

The same rule serves both: a plan, which orders everything that a study will do, and a run, which orders the jobs that are left.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

from demur.core.errors import WorkError


class Task(Protocol):
    """Something to do with loaded checkpoints."""

    @property
    def key(self) -> str:
        """The name of the task."""
        ...

    @property
    def weights(self) -> tuple[str, ...]:
        """The checkpoints that must be loaded."""
        ...

    @property
    def needs(self) -> tuple[str, ...]:
        """Keys of its inputs, which must exist before it can run."""
        ...

    @property
    def gives(self) -> tuple[str, ...]:
        """Keys of its outputs."""
        ...


AnyTask = TypeVar("AnyTask", bound=Task)


@dataclass(frozen=True)
class Step(Generic[AnyTask]):
    """One thing to do: load a checkpoint, free it, or run a job.

    Attributes:
        action: `load`, `free` or `run`.
        checkpoint: the checkpoint to load or free.
        job: the job to run.
    """

    action: Literal["load", "free", "run"]
    checkpoint: str = ""
    job: AnyTask | None = None


def order_jobs(jobs: Sequence[AnyTask], stored: Collection[str], *, together: bool) -> list[Step[AnyTask]]:
    """Put jobs in an order in which each has its inputs, with few loads.

    Generation does not wait for all extractions. If a checkpoint is in memory and the directions that its cells need exist, its
    cells are generated at once. If the checkpoints do not fit into memory together, n checkpoints take at most 2 n - 1 loads,
    plus the loads for jobs that need a pair of checkpoints.

    Args:
        jobs: the jobs, in the order of the study.
        stored: keys of what is stored already.
        together: whether all checkpoints fit into memory at once.

    Returns:
        The steps. Every loaded checkpoint is freed.

    Raises:
        WorkError: if an input of a job is neither stored nor the output of another job.
    """
    waiting, there, loaded = list(jobs), set(stored), list[str]()
    steps: list[Step[AnyTask]] = []
    while waiting:
        for job in _reach(waiting, there, loaded):
            steps.append(Step("run", job=job))
            waiting.remove(job)
            there.update(job.gives)
            for name in [name for name in job.weights if not _of(waiting, name)]:
                steps.append(Step("free", name))
                loaded.remove(name)
        for name in [name for name in loaded if not together]:
            steps.append(Step("free", name))
            loaded.remove(name)
        if waiting:
            for name in _next(waiting, there, loaded):
                steps.append(Step("load", name))
                loaded.append(name)
    return steps + [Step("free", name) for name in loaded]


def loads(steps: Sequence[Step[AnyTask]]) -> int:
    """How often weights are read."""
    return sum(step.action == "load" for step in steps)


def most_at_once(steps: Sequence[Step[AnyTask]], sizes: Mapping[str, int]) -> int:
    """The largest total size of the checkpoints that are loaded at the same time.

    Args:
        steps: loads and frees in order.
        sizes: the size of each checkpoint; one that is missing counts as 0.
    """
    now = most = 0
    for step in steps:
        now += {"load": 1, "free": -1, "run": 0}[step.action] * sizes.get(step.checkpoint, 0)
        most = max(most, now)
    return most


def _reach(waiting: Sequence[AnyTask], there: Collection[str], loaded: Sequence[str]) -> list[AnyTask]:
    """The waiting jobs that can run with the loaded checkpoints, in order. Later ones may need outputs of earlier ones.

    Jobs of the checkpoint that was loaded last come first, so that this checkpoint is freed next if all are in memory.
    """
    found: list[AnyTask] = []
    ages = {name: -place for place, name in enumerate(loaded)}
    known, left = set(there), sorted(waiting, key=lambda job: min((ages.get(name, 1) for name in job.weights), default=1))
    while True:
        ready = next((job for job in left if set(job.weights) <= set(loaded) and set(job.needs) <= known), None)
        if ready is None:
            return found
        found.append(ready)
        left.remove(ready)
        known.update(ready.gives)


def _of(jobs: Iterable[AnyTask], checkpoint: str) -> list[AnyTask]:
    return [job for job in jobs if checkpoint in job.weights]


def _next(waiting: Sequence[AnyTask], there: Collection[str], loaded: Sequence[str]) -> tuple[str, ...]:
    """The checkpoints to load next: one whose own jobs can then all run; else one with some job that can run; else a pair."""
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
    made = {key for job in waiting for key in job.gives}
    lacking = [(job.key, key) for job in waiting for key in job.needs if key not in there]
    # An input that another waiting job would make is not the cause, so it is named only if there is no other.
    key, missing = next(((key, need) for key, need in lacking if need not in made), lacking[0])
    raise WorkError(
        f"the job {key!r} needs {missing.replace(':', ' ', 1)}, which is not stored and which no job makes; run the "
        "study again with --fresh"
    )
