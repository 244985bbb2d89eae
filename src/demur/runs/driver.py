"""The driver of a run: gives pending jobs to an executor and stores their records. No other module stores them."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from demur.core.errors import InputError
from demur.core.progress import Phases, no_phases
from demur.measurements.measurement import measurement
from demur.runs.describe import admit, session_now
from demur.runs.job_inputs import JobInputs
from demur.runs.jobs import AskedMeasurement, asked_measurements, pending_jobs
from demur.runs.records import CheckpointLoaded, CompletionsMade, DirectionMade, JobRecord
from demur.runs.rows import StoredMeans, StoredMeasurement
from demur.runs.sharding.shard import ShardWork
from demur.runs.sharding.shard_jobs import shard_jobs
from demur.runs.store import Store
from demur.study.preflight import Ready

if TYPE_CHECKING:
    from demur.runs.executors.executor import Executor


def carry_out(
    ready: Ready,
    store: Store,
    executor: "Executor",
    *,
    device: str = "auto",
    phases: Phases = no_phases,
    measurements: Sequence[AskedMeasurement] | None = None,
    watch: Callable[[JobRecord], object] = lambda _: None,
    work: ShardWork | None = None,
) -> None:
    """Do the pending jobs and store each record at once.

    If a run is killed, all stored records are kept, and the same call does the remaining jobs.

    Args:
        ready: the checked plan.
        store: the run folder.
        executor: runs the jobs.
        device: where checkpoints are loaded.
        phases: shows progress.
        measurements: the measurements to make; those of the study and those that were added to the run unless given.
        watch: called with each record after it was stored.
        work: the part of the study to carry out; all of it unless given.

    Raises:
        InputError: if a checkpoint is not the one that this run began with.
        WorkError: if the work fails; what was finished by then is stored.
    """
    if measurements is not None:
        store.remember_asked(((one.name, one.settings) for one in measurements), added=True)
    jobs = pending_jobs(ready, store, _asked(ready, store) if measurements is None else measurements)
    if work is not None:
        jobs = shard_jobs(jobs, ready.plan, work)
    if not jobs:
        return
    store.remember_session(session_now(device))
    records = executor.run(jobs, JobInputs(ready, store, device, phases))
    try:
        for record in records:
            commit(record, store)
            watch(record)
    finally:
        # A generator frees its checkpoints when it is closed; other iterators have nothing to close.
        close = getattr(records, "close", None)
        if close is not None:
            close()


def _asked(ready: Ready, store: Store) -> list[AskedMeasurement]:
    """What the study asks for, and what was added and is installed: a run that grows has new subjects for both."""
    found = [*asked_measurements(ready.plan.study), *(AskedMeasurement(*one) for one in store.added_measurements())]
    return [one for one in dict.fromkeys(found) if _installed(one.name)]


def _installed(name: str) -> bool:
    try:
        measurement(name)
    except InputError:
        return False
    return True


def commit(record: JobRecord, store: Store) -> None:
    """Store one record. Storing it again changes nothing.

    Args:
        record: what a job gave.
        store: the run folder.

    Raises:
        InputError: for a checkpoint that is not the one that this run began with.
    """
    if isinstance(record, CheckpointLoaded):
        admit(record, store)
    elif isinstance(record, DirectionMade):
        store.add_direction(record.direction, record.facts)
    elif isinstance(record, CompletionsMade):
        store.add_completions(record.rows)
    elif isinstance(record, StoredMeans):
        store.add_means(record)
    elif isinstance(record, StoredMeasurement):
        store.add_measurement(record)
    else:
        store.add_unmeasured(record)
