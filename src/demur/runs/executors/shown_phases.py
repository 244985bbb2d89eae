"""Shows the phases of several workers at the same time."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Self

from demur.core.progress import Phases, Progress, silent

MOST_SHOWN = 8
"""With more workers, only the number of finished jobs is shown."""


class _Abandoned(Exception):
    """Ends a phase that was not finished."""


class ShownPhases:
    """The phases that workers are in."""

    def __init__(self, phases: Phases, *, workers: int, jobs: int) -> None:
        """Take how progress is shown.

        Args:
            phases: shows progress.
            workers: how many workers there are.
            jobs: how many jobs they have to do.
        """
        self._phases, self._each = phases, workers <= MOST_SHOWN
        self._open: dict[int, tuple[AbstractContextManager[Progress], Progress]] = {}
        self._all = ExitStack()
        self._whole: Progress = silent
        self._title = (f"jobs of {workers} workers", jobs)

    def __enter__(self) -> Self:
        if not self._each:
            self._whole = self._all.enter_context(self._phases(*self._title))
        return self

    def __exit__(self, *error: object) -> None:
        for worker in list(self._open):
            self.abandon(worker)
        self._all.close()

    @property
    def shown(self) -> Mapping[int, object]:
        """The workers whose phases are shown."""
        return self._open

    def begin(self, worker: int, name: str, total: int | None) -> None:
        """A worker began a phase."""
        if self._each:
            phase = self._phases(name, total)
            self._open[worker] = (phase, phase.__enter__())

    def advance(self, worker: int, done: int) -> None:
        """A worker finished units of its phase."""
        if worker in self._open:
            self._open[worker][1](done)

    def end(self, worker: int) -> None:
        """A worker's phase is over."""
        if worker in self._open:
            self._open.pop(worker)[0].__exit__(None, None, None)

    def abandon(self, worker: int) -> None:
        """A worker's phase will not be finished, if it is in one."""
        if worker in self._open:
            error = _Abandoned()
            self._open.pop(worker)[0].__exit__(_Abandoned, error, None)

    def job_done(self) -> None:
        """A job is done."""
        self._whole(1)
