"""What a driver and its workers say to each other. All of it can be pickled, and nothing here imports torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from demur.core.errors import InputError, WorkError
from demur.runs.executors.carried_inputs import CarriedInputs
from demur.runs.jobs import Job
from demur.runs.records import JobRecord
from demur.study.preflight import Ready


@dataclass(frozen=True)
class WorkerSetup:
    """What a worker is told once.

    Attributes:
        ready: the checked plan.
        device: the device on which it loads checkpoints, as it sees it.
        sharing: how many workers share its device and its memory.
        parts: the parts that were registered in the driver's process: kind -> name -> target.
    """

    ready: Ready
    device: str
    sharing: int = 1
    parts: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """One job for a worker, with what it reads.

    Attributes:
        job: the job.
        inputs: what the job reads of what is stored.
        frees: the checkpoints to free first.
        loads: the checkpoints to load then.
    """

    job: Job
    inputs: CarriedInputs
    frees: tuple[str, ...] = ()
    loads: tuple[str, ...] = ()


@dataclass(frozen=True)
class WorkerReady:
    """A worker has started. `bytes` is how much memory its weights may take."""

    bytes: int


@dataclass(frozen=True)
class Alive:
    """A worker says every few seconds that it lives."""


@dataclass(frozen=True)
class PhaseBegun:
    """A worker began a phase; `total` is its number of units, None if not known."""

    name: str
    total: int | None


@dataclass(frozen=True)
class PhaseAdvanced:
    """Units of the worker's phase were finished."""

    done: int


@dataclass(frozen=True)
class PhaseEnded:
    """The worker's phase is over."""


@dataclass(frozen=True)
class RecordMade:
    """A record of the worker's job."""

    record: JobRecord


@dataclass(frozen=True)
class TaskDone:
    """The worker's job is done, and all its records were sent. It has the seconds of the loads and of the job itself."""

    loading: float = 0.0
    working: float = 0.0


@dataclass(frozen=True)
class TaskFailed:
    """The worker's job failed.

    Attributes:
        kind: `input` for an `InputError`, `work` for a `WorkError`, `defect` for every other error.
        message: its message; the whole traceback of a defect.
    """

    kind: str
    message: str

    def error(self, worker: str, job: str) -> Exception:
        """The error to raise in the driver.

        Args:
            worker: the worker's name.
            job: the name of the job.
        """
        if self.kind == "input":
            return InputError(self.message)
        if self.kind == "work":
            return WorkError(self.message)
        return RuntimeError(f"{worker} failed at {job!r}:\n{self.message}")


@dataclass(frozen=True)
class Said:
    """A line that a worker's process wrote to its standard output or error."""

    line: str


@dataclass(frozen=True)
class WorkerEnded:
    """The worker is gone. `reason` follows its name in a sentence: `was killed by signal 9`."""

    reason: str


WorkerMessage = (
    WorkerReady | Alive | PhaseBegun | PhaseAdvanced | PhaseEnded | RecordMade | TaskDone | TaskFailed | Said | WorkerEnded
)
