"""The workers of a run as the driver sees them: who is at work on what, who is silent, and who is started again."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Protocol

from demur.core.errors import WorkError
from demur.runs.executors.carried_inputs import carried
from demur.runs.executors.job_queue import Assignment, JobQueue, Memory
from demur.runs.executors.worker_messages import Task, WorkerEnded, WorkerMessage, WorkerReady
from demur.runs.job_inputs import JobInputs

LOOK_SECONDS = 1.0
"""How often the driver looks for workers that have become silent."""

START_PATIENCE = 5
"""A worker that has said nothing yet is given so many times as long, because importing torch may take minutes."""


class Worker(Protocol):
    """A worker that was started."""

    def send(self, task: Task) -> None:
        """Give it a task. If the worker is gone, nothing happens here: the driver hears of it as a `WorkerEnded`."""
        ...

    def stop(self) -> None:
        """End it at once. Calling this twice does no harm."""
        ...


class StartsWorkers(Protocol):
    """One way of having workers: processes of this machine, or actors of a cluster."""

    def start(self, number: int, hear: Callable[[WorkerMessage], None]) -> Worker:
        """Start a worker.

        Args:
            number: which worker it is, from 0. A worker that is started again keeps its number.
            hear: is called, from any thread, with each message of the worker; the last one is a `WorkerEnded`.
        """
        ...


@dataclass
class Member:
    """A worker with what the driver knows of it.

    Attributes:
        number: which worker it is, from 0.
        worker: the worker.
        memory: the checkpoints that it holds.
        task: what it is at work on; None if it is free or still starting.
        ready: whether it has started.
        heard: whether it has said anything.
        silent: for how many seconds it has said nothing while the driver listened.
        refused: the version of the queue in which there was no job for it; it is not asked for one again before that changes.
    """

    number: int
    worker: Worker
    memory: Memory = field(default_factory=Memory)
    task: Assignment | None = None
    ready: bool = False
    heard: bool = False
    silent: float = 0.0
    refused: int = -1

    @property
    def name(self) -> str:
        """The worker's name in messages."""
        return f"worker {self.number + 1}"


class Crew:
    """All workers of a run."""

    def __init__(self, starts: StartsWorkers, *, patience: float, attempts: int) -> None:
        """Begin without workers.

        Args:
            starts: starts workers.
            patience: seconds after which a worker that says nothing is taken for dead.
            attempts: how often in a row a worker may die before it is ready.
        """
        self._starts, self._patience, self._attempts = starts, patience, attempts
        self._ids, self._failed_starts = count(), 0
        self._members: dict[int, Member] = {}
        self._heard = SimpleQueue[tuple[int, WorkerMessage]]()

    def start(self, number: int) -> None:
        """Start the worker with this number."""
        key = next(self._ids)
        self._members[key] = Member(number, self._starts.start(number, partial(self._hear, key)))

    def stop(self) -> None:
        """End all workers at once."""
        for member in self._members.values():
            member.worker.stop()
        self._members.clear()

    @property
    def at_work(self) -> bool:
        """Whether some worker has a task or is starting."""
        return any(member.task is not None or not member.ready for member in self._members.values())

    def hand_out(self, queue: JobQueue, inputs: JobInputs) -> None:
        """Give every free worker a job, if there is one for it."""
        for member in self._members.values():
            if not member.ready or member.task is not None or member.refused == queue.version:
                continue
            member.task = queue.take(member.memory, self._others(member))
            if member.task is None:
                member.refused = queue.version
            else:
                one = member.task
                member.worker.send(Task(one.job, carried(one.job, inputs), one.frees, one.loads))

    def _others(self, member: Member) -> Iterator[Memory]:
        return (other.memory for other in self._members.values() if other is not member)

    def messages(self) -> Iterator[tuple[Member, WorkerMessage]]:
        """What workers say, as it comes in. Ends only if the caller stops asking.

        Raises:
            WorkError: if workers die again and again before they are ready.
        """
        looked = monotonic()
        while True:
            try:
                heard = self._heard.get(timeout=LOOK_SECONDS)
            except Empty:
                heard = None
            seconds = monotonic() - looked
            # A worker is silent only if this process has heard everything that was said.
            if seconds >= LOOK_SECONDS and self._heard.empty():
                looked = monotonic()
                yield from self._silent(seconds)
            if heard is None:
                continue
            key, message = heard
            member = self._members.get(key)
            if member is None:
                continue  # the last words of a worker that was replaced
            member.silent, member.heard = 0.0, True
            if isinstance(message, WorkerReady):
                member.ready, member.memory.bytes, self._failed_starts = True, message.bytes, 0
            if isinstance(message, WorkerEnded):
                self._remove(key, message.reason)
            yield member, message

    def _hear(self, key: int, message: WorkerMessage) -> None:
        self._heard.put((key, message))

    def _silent(self, seconds: float) -> Iterator[tuple[Member, WorkerMessage]]:
        """The workers that are silent for too long, as ended ones. Time in which this process was stopped is not counted."""
        for key, member in list(self._members.items()):
            member.silent += min(seconds, 2 * LOOK_SECONDS)
            if member.silent >= self._patience * (1 if member.heard else START_PATIENCE):
                ended = WorkerEnded(f"gave no sign of life for {member.silent:.0f} s")
                self._remove(key, ended.reason)
                yield member, ended

    def _remove(self, key: int, reason: str) -> None:
        member = self._members.pop(key)
        member.worker.stop()
        if not member.ready:
            self._failed_starts += 1
            if self._failed_starts >= self._attempts:
                raise WorkError(f"{member.name} {reason} before it was ready, and so did {self._attempts - 1} before it")
