"""The jobs of a run while several workers do them: which job a free worker gets, and what is done again. Nothing is run here.

The order of jobs affects no result. It follows the rule of `demur.study.load_order`: what is in memory is used before anything
else is loaded.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from demur.core.errors import sentence
from demur.runs.jobs import GenerateJob, Job
from demur.runs.rows import StoredCompletion
from demur.study.machines.contiguous_parts import contiguous_parts

JobNumber = int
"""Which job of the queue it is. The parts of one generation have the same key, so keys do not tell them apart."""


@dataclass
class Memory:
    """The checkpoints that a worker holds.

    Attributes:
        bytes: how many bytes of weights the worker may hold.
        held: the names of the checkpoints that it holds.
    """

    bytes: int = 0
    held: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Assignment:
    """What a worker does next: free some checkpoints, load others, then run a job.

    Attributes:
        number: which job of the queue it is.
        job: the job.
        frees: the checkpoints to free.
        loads: the checkpoints to load.
    """

    number: JobNumber
    job: Job
    frees: tuple[str, ...] = ()
    loads: tuple[str, ...] = ()


class JobQueue:
    """The jobs that are left."""

    def __init__(self, jobs: Sequence[Job], stored: Collection[str], sizes: Mapping[str, int | None], *, attempts: int) -> None:
        """Take the jobs.

        Args:
            jobs: the jobs, in the order of the study.
            stored: keys of what is stored already.
            sizes: bytes of the weights of each checkpoint in memory; None if not known. Such a checkpoint is held alone.
            attempts: how often a job is begun at most.
        """
        self._waiting = dict(enumerate(jobs))
        # A job that is done again may lack some of its rows, but in the end everything that it gives is there.
        self._gives = {number: job.gives for number, job in self._waiting.items()}
        self._running: dict[JobNumber, Job] = {}
        self._there, self._sizes, self._attempts = set(stored), sizes, attempts
        self._begun: dict[JobNumber, int] = {}
        self._made: dict[JobNumber, set[tuple[str, int]]] = {}
        self.failures: list[str] = []
        self.version = 0
        """Grows when there may be a job for a worker that had none."""
        self._ready: tuple[int, list[JobNumber]] = (-1, [])
        self._useful: set[str] = set()
        """The checkpoints of the jobs that are ready."""
        self._no_load = -1
        """The version in which a worker that held none of these had no job."""

    @property
    def waiting(self) -> list[Job]:
        """The jobs that no worker does yet, in order."""
        return list(self._waiting.values())

    @property
    def there(self) -> Collection[str]:
        """Keys of what is stored."""
        return self._there

    @property
    def left(self) -> int:
        """How many jobs are not done."""
        return len(self._waiting) + len(self._running)

    def take(self, memory: Memory, others: Iterable[Memory]) -> Assignment | None:
        """The next job for a free worker.

        A worker loads a checkpoint that others hold only if there are more waiting jobs for it than workers that hold it, or if
        it is for completions, which take much longer than a load.

        Args:
            memory: what the worker holds; it is changed to what the worker will hold.
            others: what the other workers hold.

        Returns:
            The job with what to free and load before; None if the worker should wait.
        """
        ready = self._with_inputs()
        useless = self._useful.isdisjoint(memory.held)
        if useless and self._no_load == self.version:
            return None  # another worker that held nothing of use had no job either
        number = next((one for one in ready if set(self._waiting[one].weights) <= set(memory.held)), None)
        loads: tuple[str, ...] = ()
        if number is None:
            number = self._worth_a_load(ready, memory, list(others))
            if number is None:
                self._no_load = self.version if useless else self._no_load
                return None
            loads = tuple(name for name in self._waiting[number].weights if name not in memory.held)
        job = self._waiting.pop(number)
        ready.remove(number)
        frees = self._freed(memory, job, loads)
        memory.held = [name for name in memory.held if name not in frees] + [*loads]
        self._running[number] = job
        self._begun[number] = self._begun.get(number, 0) + 1
        self._made[number] = set()
        return Assignment(number, job, frees, loads)

    def made(self, number: JobNumber, rows: Sequence[StoredCompletion]) -> None:
        """Note completions that are about to be stored, so that they are not made again."""
        self._made[number].update((row.cell, row.position) for row in rows)

    def done(self, number: JobNumber) -> None:
        """Note that a job is done and that everything it gave is stored."""
        del self._running[number]
        self._there.update(self._gives[number])
        self.version += 1

    def lost(self, number: JobNumber, reason: str) -> bool:
        """Note that a worker died at a job. The job waits again, without the completions that are stored.

        Args:
            number: the job.
            reason: what is known of the death.

        Returns:
            Whether the job is done again; False if it was begun as often as is allowed, and then it has failed.
        """
        if self._begun[number] >= self._attempts:
            job = self._running[number]
            self.failed(number, f"{self._attempts} workers died at {job.key!r}; the last one {reason}")
            return False
        job = self._running.pop(number)
        left = _without(job, self._made[number])
        if left is None:
            # The worker died after it had sent the last completion.
            self._there.update(self._gives[number])
        else:
            self._waiting = dict(sorted({**self._waiting, number: left}.items()))
        self.version += 1
        return True

    def failed(self, number: JobNumber, reason: str) -> None:
        """Note that the work of a job failed. The jobs that need none of its outputs are still done."""
        del self._running[number]
        self.failures.append(sentence(reason))

    def _with_inputs(self) -> list[JobNumber]:
        """The waiting jobs whose inputs are there. Found once for each version, because there may be thousands of jobs."""
        if self._ready[0] != self.version:
            found = [number for number, job in self._waiting.items() if self._there.issuperset(job.needs)]
            self._ready = (self.version, found)
            self._useful = {name for number in found for name in self._waiting[number].weights}
        return self._ready[1]

    def _worth_a_load(self, ready: Sequence[JobNumber], memory: Memory, others: Sequence[Memory]) -> JobNumber | None:
        groups: dict[tuple[str, ...], list[JobNumber]] = {}
        for number in ready:
            groups.setdefault(self._waiting[number].weights, []).append(number)
        holders = {weights: sum(set(weights) <= set(other.held) for other in others) for weights in groups}
        # What is partly in memory comes first, then what few others hold. `sorted` keeps the order of the study.
        for weights in sorted(groups, key=lambda names: (len(set(names) - set(memory.held)), holders[names])):
            numbers = groups[weights]
            long = any(isinstance(self._waiting[number], GenerateJob) for number in numbers)
            if not holders[weights] or long or len(numbers) > holders[weights]:
                return numbers[0]
        return None

    def _freed(self, memory: Memory, job: Job, loads: Sequence[str]) -> tuple[str, ...]:
        """What is freed before a load: what no job needs any more, and if the rest does not fit, everything else."""
        if not loads:
            return ()
        wanted = {name for each in self._waiting.values() for name in each.weights}
        kept = [name for name in memory.held if name in wanted or name in job.weights]
        sizes = [self._sizes.get(name) for name in (*kept, *loads)]
        if any(size is None for size in sizes) or sum(size or 0 for size in sizes) > memory.bytes:
            kept = [name for name in kept if name in job.weights]
        return tuple(name for name in memory.held if name not in kept)


def _without(job: Job, made: Collection[tuple[str, int]]) -> Job | None:
    """A job without the completions that are stored; None if none is left."""
    if not isinstance(job, GenerateJob):
        return job
    rows = ((cell, tuple(at for at in positions if (cell, at) not in made)) for cell, positions in job.rows)
    left = tuple((cell, positions) for cell, positions in rows if positions)
    return replace(job, rows=left) if left else None


def split_generations(jobs: Sequence[Job], workers: int) -> list[Job]:
    """Cut generations into parts, so that no worker has nothing to do while others generate.

    With at least as many generations as workers, only those that are left over after whole rounds are cut. A cell is never cut.
    In float32, a completion does not depend on the other rows of its batch, so the parts give the same completions.

    Args:
        jobs: the jobs.
        workers: how many workers there are.

    Returns:
        The jobs in their order, with the parts in place of what was cut.
    """
    generations = [job for job in jobs if isinstance(job, GenerateJob)]
    over = len(generations) % workers
    cut = generations[len(generations) - over :] if over else []
    found: list[Job] = []
    for job in jobs:
        found += _parts(job, -(-workers // over)) if isinstance(job, GenerateJob) and job in cut else [job]
    return found


def _parts(job: GenerateJob, count: int) -> list[GenerateJob]:
    parts = contiguous_parts([len(positions) for _, positions in job.rows], count)
    return [replace(job, rows=tuple(job.rows[index] for index in part)) for part in parts]
