"""How tasks are spread over workers, each with a device of its own: who does what, when, and with which loads.

A worker that is free takes the first task that needs no load. Otherwise it loads the checkpoint with work that the fewest workers
hold. It does not load one if those that hold it would be done sooner. This is the rule of `load_order` for several workers: what
is in memory is used before anything else is loaded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heapreplace

from demur.core.errors import WorkError


@dataclass(frozen=True)
class TimedTask:
    """A task of `load_order`, with how long it takes.

    Attributes:
        key: the name of the task.
        weights: the checkpoints that must be loaded.
        needs: keys of its inputs, which must exist before it can run.
        gives: keys of its outputs.
        seconds: how long it takes once its checkpoints are loaded.
        cells: how many cells it makes, if it is one of the parts of a generation; else 0.
    """

    key: str
    weights: tuple[str, ...]
    needs: tuple[str, ...]
    gives: tuple[str, ...]
    seconds: float
    cells: int = 0


@dataclass(frozen=True)
class WorkerDay:
    """What one worker does.

    Attributes:
        tasks: its tasks, in order.
        loads: the checkpoints that it loads, in order; one that is loaded again is there twice.
        busy: seconds that it loads or works.
        bytes: the largest total size of the checkpoints that it holds at once.
    """

    tasks: tuple[TimedTask, ...]
    loads: tuple[str, ...]
    busy: float
    bytes: int


@dataclass(frozen=True)
class Spread:
    """Tasks on workers.

    Attributes:
        workers: what each worker does.
        seconds: when the last one is done.
    """

    workers: tuple[WorkerDay, ...]
    seconds: float

    @property
    def loads(self) -> int:
        """How often weights are read."""
        return sum(len(worker.loads) for worker in self.workers)

    @property
    def idle(self) -> float:
        """The share of the workers' time in which they have nothing to do; 0 if nothing takes any time."""
        whole = len(self.workers) * self.seconds
        return 1 - sum(worker.busy for worker in self.workers) / whole if whole else 0.0


@dataclass(frozen=True)
class Weights:
    """The weights of a checkpoint.

    Attributes:
        bytes: their size in memory.
        seconds: how long it takes to load them.
    """

    bytes: int
    seconds: float


@dataclass
class _Worker:
    until: float = 0.0
    held: list[str] = field(default_factory=list)
    tasks: list[TimedTask] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    busy: float = 0.0
    most: int = 0


def spread(tasks: Sequence[TimedTask], workers: int, weights: Mapping[str, Weights], memory: int) -> Spread:
    """Spread tasks over workers.

    Args:
        tasks: the tasks, in the order of the study.
        workers: how many workers there are.
        weights: the weights of each checkpoint.
        memory: bytes of weights that one worker holds at once. A single checkpoint is loaded even if it is larger.

    Returns:
        What each worker does, and when all is done.

    Raises:
        WorkError: if an input of a task is no task's output.
    """
    room = _Room([_Worker() for _ in range(workers)], list(tasks), weights, memory)
    now = 0.0
    while True:
        # What one worker finishes at once may be what another one waits for.
        moved = True
        while moved:
            moved = False
            for worker in room.workers:
                moved = room.occupy(worker, now) or moved
        now = min((worker.until for worker in room.workers if worker.until > now), default=-1.0)
        if now < 0:
            break
    if room.waiting:
        lacking = room.waiting[0]
        raise WorkError(f"the task {lacking.key!r} needs {', '.join(lacking.needs)}, which no task makes")
    days = tuple(WorkerDay(tuple(one.tasks), tuple(one.loads), one.busy, one.most) for one in room.workers)
    return Spread(days, max(one.until for one in room.workers))


@dataclass
class _Room:
    """The workers and the tasks that wait."""

    workers: list[_Worker]
    waiting: list[TimedTask]
    weights: Mapping[str, Weights]
    memory: int
    there: dict[str, float] = field(default_factory=dict)

    def occupy(self, worker: _Worker, now: float) -> bool:
        """Give a free worker something to do, and say whether there was anything. Tasks that take no time are done at once."""
        found = False
        while worker.until <= now:
            ready = [task for task in self.waiting if all(self.there.get(key, now + 1) <= now for key in task.needs)]
            task = next((task for task in ready if set(task.weights) <= set(worker.held)), None)
            if task is not None:
                self._run(worker, task, now)
            elif missing := self._next_load(worker, ready, now):
                self._load(worker, missing, now)
            else:
                break
            found = True
        return found

    def _run(self, worker: _Worker, task: TimedTask, now: float) -> None:
        self.waiting.remove(task)
        worker.tasks.append(task)
        worker.busy += task.seconds
        worker.until = now + task.seconds
        self.there.update(dict.fromkeys(task.gives, worker.until))
        worker.held = [name for name in worker.held if any(name in other.weights for other in self.waiting)]

    def _load(self, worker: _Worker, names: Sequence[str], now: float) -> None:
        wanted = sum(self.weights[name].bytes for name in names)
        if sum(self.weights[name].bytes for name in worker.held) + wanted > self.memory:
            worker.held = []
        taken = sum(self.weights[name].seconds for name in names)
        worker.held += names
        worker.loads += names
        worker.busy += taken
        worker.until = now + taken
        worker.most = max(worker.most, sum(self.weights[name].bytes for name in worker.held))

    def _next_load(self, worker: _Worker, ready: Sequence[TimedTask], now: float) -> tuple[str, ...]:
        """The checkpoints to load for some task that is ready; empty if the worker should rather wait."""
        found: dict[tuple[str, ...], list[TimedTask]] = {}
        for task in ready:
            found.setdefault(task.weights, []).append(task)
        for names in sorted(found, key=lambda names: (len(names), len(self._holders(worker, names)), -_seconds(found[names]))):
            missing = tuple(name for name in names if name not in worker.held)
            held = self._holders(worker, names)
            alone = now + sum(self.weights[name].seconds for name in missing) + min(task.seconds for task in found[names])
            if not held or alone < _done(found[names], [max(one.until, now) for one in held]):
                # A pair whose parts do not fit beside what is held is loaded whole.
                fits = sum(self.weights[name].bytes for name in {*worker.held, *missing}) <= self.memory
                return missing if fits else names
        return ()

    def _holders(self, worker: _Worker, names: Sequence[str]) -> list[_Worker]:
        return [other for other in self.workers if other is not worker and set(names) <= set(other.held)]


def _done(tasks: Sequence[TimedTask], free: list[float]) -> float:
    """When workers who are free at these times have done the tasks: the next one always goes to whoever is free first."""
    heapify(free)
    for task in tasks:
        heapreplace(free, free[0] + task.seconds)
    return max(free)


def _seconds(tasks: Sequence[TimedTask]) -> float:
    return sum(task.seconds for task in tasks)
