"""The work of a worker: it holds checkpoints, runs jobs with what was sent to it, and gives their records. It stores nothing."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

from demur.core.errors import InputError, WorkError
from demur.core.progress import Progress
from demur.core.registry import registry
from demur.engine.checkpoints import Checkpoint
from demur.models import memory_budget
from demur.models.freed_memory import free_memory
from demur.runs.describe import loaded_record
from demur.runs.execution import load_named, run_job
from demur.runs.executors.worker_messages import (
    PhaseAdvanced,
    PhaseBegun,
    PhaseEnded,
    RecordMade,
    Task,
    TaskDone,
    TaskFailed,
    WorkerMessage,
    WorkerReady,
    WorkerSetup,
)
from demur.runs.job_inputs import JobInputs


class TaskRunner:
    """Runs the tasks of one worker, one after another."""

    def __init__(self, setup: WorkerSetup, send: Callable[[WorkerMessage], None]) -> None:
        """Begin.

        Args:
            setup: what the worker was told.
            send: sends a message to the driver.
        """
        for kind, parts in setup.parts.items():
            for name, target in parts.items():
                registry(kind).register(name, target)
        memory_budget.share(setup.sharing)
        self._setup, self._send = setup, send
        self._loaded: dict[str, Checkpoint] = {}
        send(WorkerReady(memory_budget.available(setup.device)))

    def run(self, task: Task) -> None:
        """Run one task, and send its records and how it ended."""
        try:
            done = self._run(task)
        except InputError as error:
            self._send(TaskFailed("input", str(error)))
        except WorkError as error:
            self._send(TaskFailed("work", str(error)))
        except Exception:  # a part of someone else may raise anything; the driver must hear of it
            self._send(TaskFailed("defect", traceback.format_exc()))
        else:
            self._send(done)

    def _run(self, task: Task) -> TaskDone:
        begun = perf_counter()
        inputs = JobInputs(self._setup.ready, task.inputs, self._setup.device, self._phases)
        for name in task.frees:
            del self._loaded[name]
        if task.frees:
            free_memory()
        for name in task.loads:
            with inputs.phases(f"loading {name}", 1) as progress:
                self._loaded[name] = load_named(inputs.study, name, inputs.device)
                progress(1)
            self._send(RecordMade(loaded_record(inputs, self._loaded[name], name)))
        loaded = perf_counter()
        for record in run_job(task.job, inputs, self._loaded):
            self._send(RecordMade(record))
        return TaskDone(loaded - begun, perf_counter() - loaded)

    @contextmanager
    def _phases(self, name: str, total: int | None) -> Iterator[Progress]:
        self._send(PhaseBegun(name, total))
        yield lambda done: self._send(PhaseAdvanced(done))
        self._send(PhaseEnded())
