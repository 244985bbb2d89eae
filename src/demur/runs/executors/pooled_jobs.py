"""Runs the jobs of a run on several workers, whatever the workers are. The driver stores what they give."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from demur.core.errors import WorkError
from demur.runs.executors.checkpoint_sizes import checkpoint_sizes
from demur.runs.executors.job_queue import JobQueue, split_generations
from demur.runs.executors.shown_phases import ShownPhases
from demur.runs.executors.worker_crew import Crew, Member, StartsWorkers
from demur.runs.executors.worker_messages import (
    PhaseAdvanced,
    PhaseBegun,
    PhaseEnded,
    RecordMade,
    Said,
    TaskDone,
    TaskFailed,
    WorkerEnded,
    WorkerMessage,
)
from demur.runs.job_inputs import JobInputs
from demur.runs.jobs import Job, stored_keys
from demur.runs.records import CompletionsMade, JobRecord
from demur.study.load_order import order_jobs

ATTEMPTS = 3
"""How often a job is begun at most, if its workers die."""

PATIENCE = 120.0
"""Seconds after which a worker that says nothing is taken for dead."""


@dataclass(frozen=True)
class JobTime:
    """How long one job took.

    Attributes:
        job: the job.
        loads: how many checkpoints were loaded for it.
        loading: seconds that this took, with what was freed before.
        working: seconds of the job itself.
    """

    job: Job
    loads: int
    loading: float
    working: float


class PreparesWorkers(Protocol):
    """Says how many workers a run has, and how they are started."""

    def workers(self, inputs: JobInputs) -> int:
        """The number of workers.

        Raises:
            InputError: if this machine or cluster cannot have the workers that were asked for.
        """
        ...

    def starting(self, inputs: JobInputs) -> StartsWorkers:
        """What starts the workers of a run."""
        ...

    def end(self) -> None:
        """Called once after the last worker was stopped."""
        ...


class PooledJobs:
    """Runs jobs on workers. A worker that dies is started again, and its job is done again.

    Attributes:
        times: how long each job took that was done, in the order in which they were done.
    """

    name: ClassVar[str] = "pool"

    def __init__(
        self,
        prepares: PreparesWorkers,
        tell: Callable[[str], object],
        *,
        attempts: int = ATTEMPTS,
        patience: float = PATIENCE,
    ) -> None:
        """Set up. Nothing is started before `run`.

        Args:
            prepares: says how many workers there are and starts them.
            tell: called with a sentence when a worker has died.
            attempts: how often a job is begun at most, if its workers die.
            patience: seconds after which a worker that says nothing is taken for dead.
        """
        self._prepares, self._tell, self._attempts, self._patience = prepares, tell, attempts, patience
        self._said: set[str] = set()
        self.times: list[JobTime] = []

    def run(self, jobs: Sequence[Job], inputs: JobInputs) -> Iterator[JobRecord]:
        """Run jobs on all workers at once.

        Args:
            jobs: the jobs.
            inputs: what jobs read by key.

        Yields:
            Records, as they come in.

        Raises:
            InputError: if a job cannot be done as it was asked for; the other workers are stopped.
            WorkError: if the work of a job failed. The jobs that need nothing of it are done first.
        """
        count = self._prepares.workers(inputs)
        parts = split_generations(jobs, count)
        crew = Crew(self._prepares.starting(inputs), patience=self._patience, attempts=self._attempts)
        try:
            for number in range(min(count, len(parts))):
                crew.start(number)
            # This imports torch, so the workers start meanwhile.
            sizes = checkpoint_sizes(dict.fromkeys(name for job in parts for name in job.weights), inputs)
            queue = JobQueue(parts, stored_keys(inputs.ready, inputs.store), sizes, attempts=self._attempts)
            with ShownPhases(inputs.phases, workers=count, jobs=len(parts)) as shown:
                yield from self._records(queue, crew, inputs, shown)
        finally:
            crew.stop()
            self._prepares.end()
        if queue.failures:
            raise WorkError(" ".join([*dict.fromkeys(queue.failures), "What was finished is kept."]))
        if queue.left:
            order_jobs(queue.waiting, queue.there, together=True)  # raises, and names the input that is missing

    def _records(self, queue: JobQueue, crew: Crew, inputs: JobInputs, shown: ShownPhases) -> Iterator[JobRecord]:
        messages = crew.messages()
        while queue.left:
            crew.hand_out(queue, inputs)
            if not crew.at_work:
                return
            member, message = next(messages)
            if isinstance(message, RecordMade):
                if isinstance(message.record, CompletionsMade) and member.task is not None:
                    queue.made(member.task.number, message.record.rows)
                yield message.record
            else:
                self._heard(member, message, queue, crew, shown)

    def _heard(self, member: Member, message: WorkerMessage, queue: JobQueue, crew: Crew, shown: ShownPhases) -> None:
        if isinstance(message, PhaseBegun):
            shown.begin(member.number, message.name, message.total)
        elif isinstance(message, PhaseAdvanced):
            shown.advance(member.number, message.done)
        elif isinstance(message, PhaseEnded):
            shown.end(member.number)
        elif isinstance(message, Said):
            self._pass_on(member, message.line)
        elif isinstance(message, TaskDone) and member.task is not None:
            queue.done(member.task.number)
            self.times.append(JobTime(member.task.job, len(member.task.loads), message.loading, message.working))
            member.task = None
            shown.job_done()
        elif isinstance(message, TaskFailed) and member.task is not None:
            error = message.error(member.name, member.task.job.key)
            if not isinstance(error, WorkError):
                raise error
            shown.abandon(member.number)
            queue.failed(member.task.number, str(error))
            member.task = None
        elif isinstance(message, WorkerEnded):
            shown.abandon(member.number)
            self._replace(member, message.reason, queue, crew)

    def _replace(self, member: Member, reason: str, queue: JobQueue, crew: Crew) -> None:
        told = f"{member.name} {reason}"
        if member.task is not None:
            key = member.task.job.key
            again = queue.lost(member.task.number, reason)
            told += f" at {key!r}; " + ("the job is done again" if again else f"the job was begun {self._attempts} times")
        self._tell(f"{told}; the worker is started again")
        crew.start(member.number)

    def _pass_on(self, member: Member, line: str) -> None:
        """Tell what a worker's process wrote, once if several write the same."""
        if line not in self._said:
            self._said.add(line)
            self._tell(f"{member.name}: {line}")
