"""The protocol of an executor, which runs jobs somewhere and gives their records to the driver."""

from collections.abc import Iterator, Sequence
from typing import ClassVar, Protocol, runtime_checkable

from demur.runs.job_inputs import JobInputs
from demur.runs.jobs import Job
from demur.runs.records import JobRecord


@runtime_checkable
class Executor(Protocol):
    """Something that runs jobs. `PooledJobs` is one for workers of any kind.

    Attributes:
        name: its name in commands.
    """

    name: ClassVar[str]

    def run(self, jobs: Sequence[Job], inputs: JobInputs) -> Iterator[JobRecord]:
        """Run jobs and give their records.

        The driver stores each record before it asks for the next one, so a job may read what an earlier one gave. A
        `CheckpointLoaded` comes before the first record that was made with the checkpoint. If the driver refuses it, the driver
        asks for no further record.

        Args:
            jobs: all jobs that are left, in the order of `pending_jobs`.
            inputs: what jobs read by key.

        Yields:
            Records, as they are made.
        """
        ...
