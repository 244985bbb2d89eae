"""Worker processes that are forked from the test, where torch is imported already; else each would take seconds to start."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from threading import Lock

import pytest

from demur.runs.executors import processes, worker_process


class Forked:
    """A forked worker with the pipes and methods of a `subprocess.Popen` that `WorkerProcess` uses."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Fork."""
        tasks, answers, words = os.pipe(), os.pipe(), os.pipe()
        self._lock, self._status = Lock(), None
        self.environment = dict(environment)
        self.pid = os.fork()
        if not self.pid:
            for place, end in enumerate((tasks[0], answers[1], words[1])):
                os.dup2(end, place)
            # A worker that kept the driver's ends open would not notice that the driver is gone.
            os.closerange(3, 4096)
            try:
                worker_process.main()
            finally:
                os._exit(70)
        for end in (tasks[0], answers[1], words[1]):
            os.close(end)
        self.stdin, self.stdout, self.stderr = os.fdopen(tasks[1], "wb"), os.fdopen(answers[0], "rb"), os.fdopen(words[0], "rb")

    def kill(self) -> None:
        """As `Popen.kill`."""
        with self._lock:
            if self._status is None:
                os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """As `Popen.wait`."""
        with self._lock:
            if self._status is None:
                self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            return self._status

    _status: int | None


def fork_workers(patch: pytest.MonkeyPatch) -> list[Forked]:
    """Lets the executor `processes` fork its workers. Gives the list to which every new worker is added."""
    made: list[Forked] = []
    # A share of the cores would be one thread on some machines and several on others.
    patch.setenv("OMP_NUM_THREADS", "1")

    def started(environment: Mapping[str, str]) -> Forked:
        made.append(Forked(environment))
        return made[-1]

    patch.setattr(processes, "started", started)
    return made
