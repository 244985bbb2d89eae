"""The executor `processes`: worker processes of this machine, each with a GPU of its own, or with a share of the CPU cores."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from threading import Thread
from typing import IO, Any, ClassVar, cast

from demur.runs.executors.machine_shares import Share, machine_shares
from demur.runs.executors.message_pipe import MessagePipe, receive
from demur.runs.executors.pooled_jobs import ATTEMPTS, PATIENCE, PooledJobs
from demur.runs.executors.sent_parts import sent_parts
from demur.runs.executors.worker_messages import Said, Task, WorkerEnded, WorkerMessage, WorkerSetup
from demur.runs.job_inputs import JobInputs

_MAIN = "from demur.runs.executors.worker_process import main; main()"


class Processes(PooledJobs):
    """Runs jobs in worker processes of this machine.

    A worker's devices and threads are chosen before torch is imported there. A worker that dies, or is silent for too long, is
    started again, and its job is done again. The workers end when this process does.
    """

    name: ClassVar[str] = "processes"

    def __init__(
        self,
        workers: int | None = None,
        *,
        tell: Callable[[str], object],
        attempts: int = ATTEMPTS,
        patience: float = PATIENCE,
    ) -> None:
        """Set up. No process is started before `run`.

        Args:
            workers: how many processes there are; None for one on each GPU.
            tell: called with a sentence when a worker has died, and with what libraries print in a worker.
            attempts: how often a job is begun at most, if its workers die.
            patience: seconds after which a worker that says nothing is taken for dead.
        """
        super().__init__(_OnThisMachine(workers), tell, attempts=attempts, patience=patience)


class _OnThisMachine:
    """Prepares worker processes of this machine. It is a `PreparesWorkers`."""

    def __init__(self, workers: int | None) -> None:
        self._workers = workers

    def workers(self, inputs: JobInputs) -> int:
        """The number of workers."""
        return len(machine_shares(self._workers, inputs.device))

    def starting(self, inputs: JobInputs) -> "StartsProcesses":
        """What starts the workers."""
        return StartsProcesses(inputs, machine_shares(self._workers, inputs.device))

    def end(self) -> None:
        """Nothing is left when the workers are stopped."""


class StartsProcesses:
    """Starts worker processes. It is a `StartsWorkers`."""

    def __init__(self, inputs: JobInputs, shares: Sequence[Share]) -> None:
        """Take what workers need to know.

        Args:
            inputs: the inputs of the run's jobs.
            shares: what each worker may use, by its number.
        """
        self._ready, self._shares, self._parts = inputs.ready, shares, sent_parts()

    def start(self, number: int, hear: Callable[[WorkerMessage], None]) -> "WorkerProcess":
        """Start the process of a worker, and send it what it must know."""
        share = self._shares[number]
        setup = WorkerSetup(self._ready, share.device, share.sharing, self._parts)
        return WorkerProcess(started(share.environment), setup, hear)


def started(environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """A new process that serves as a worker.

    Args:
        environment: variables for its environment, in addition to those of this process.
    """
    # The worker finds modules where this process does, for example beside the user's script. Without -P, it would also find them
    # in the working directory.
    paths = os.pathsep.join(os.path.abspath(path) for path in sys.path)  # noqa: PTH100  an empty entry is the working directory
    return subprocess.Popen(
        [sys.executable, "-P", "-c", _MAIN],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": paths, **environment},
        # Ctrl-C in a terminal is for the driver alone, which then ends its workers.
        start_new_session=True,
    )


class WorkerProcess:
    """A worker process. Two threads read what it says. It is a `Worker`."""

    def __init__(self, process: "subprocess.Popen[bytes]", setup: WorkerSetup, hear: Callable[[WorkerMessage], None]) -> None:
        """Begin to listen.

        Args:
            process: the process.
            setup: what it must know.
            hear: is called with each of its messages.
        """
        self._process, self._hear = process, hear
        self._tasks = MessagePipe(cast(Any, process.stdin))
        self._threads = [Thread(target=self._messages, daemon=True), Thread(target=self._lines, daemon=True)]
        for thread in self._threads:
            thread.start()
        self._give(setup)

    def send(self, task: Task) -> None:
        """Give it a task."""
        self._give(task)

    def stop(self) -> None:
        """Kill it. It holds nothing that is not stored or can be made again."""
        self._process.kill()
        self._process.wait()
        with suppress(OSError):
            cast(IO[bytes], self._process.stdin).close()

    def _give(self, message: object) -> None:
        # If the process has ended, `_messages` says so.
        with suppress(OSError):
            self._tasks.send(message)

    def _messages(self) -> None:
        with cast(IO[bytes], self._process.stdout) as pipe, suppress(EOFError, OSError, ValueError):
            while True:
                self._hear(receive(cast(Any, pipe)))
        self._hear(WorkerEnded(_end(self._process.wait())))

    def _lines(self) -> None:
        with cast(IO[bytes], self._process.stderr) as pipe, suppress(OSError, ValueError):
            for line in pipe:
                if words := line.decode(errors="replace").rstrip():
                    self._hear(Said(words))


def _end(status: int) -> str:
    """How a process ended, after its name in a sentence."""
    if status >= 0:
        return f"ended with exit status {status}"
    with suppress(ValueError):
        found = signal.Signals(-status)
        why = ", as the system does if memory runs out" if found.name == "SIGKILL" else ""
        return f"was killed by {found.name}{why}"
    return f"was killed by signal {-status}"
