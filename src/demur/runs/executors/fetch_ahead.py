"""Fetches the next checkpoint from the model hub while this one runs, and deletes fetched weights that no job needs any more."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from threading import Event, Thread

from demur.core.errors import DemurError
from demur.models.hub.fetched_weights import FetchedWeights
from demur.models.sources import Source, fetch
from demur.runs.jobs import Job
from demur.study.load_order import Step


class FetchAhead:
    """The checkpoints of a run that are not on this machine when it begins.

    A checkpoint that cannot be fetched ahead, because the hub fails or the disk is full, is fetched when it is loaded. Only then
    it is an error.
    """

    def __init__(self, steps: Sequence[Step[Job]], sources: Mapping[str, Source], *, free_disk: bool) -> None:
        """Plan what is fetched when.

        Args:
            steps: loads and frees in the order of the run.
            sources: where the checkpoints are, by name; without those that are in memory already.
            free_disk: whether to delete fetched weights after the last job that needs them.
        """
        loads = [step.checkpoint for step in steps if step.action == "load" and step.checkpoint in sources]
        self._left = [name for name in dict.fromkeys(loads) if sources[name].kind == "hub"]
        self._later_loads = {name: loads.count(name) for name in self._left}
        self._sources, self._stop = sources, Event()
        self._threads: dict[str, Thread] = {}
        self._weights = {name: FetchedWeights(sources[name]) for name in self._left} if free_disk else {}

    def wait_for(self, name: str) -> None:
        """Wait until a checkpoint that is being fetched is here, or until that has failed."""
        if name in self._threads:
            self._threads[name].join()
        if name in self._left:
            self._left.remove(name)

    def loaded(self) -> None:
        """Called after a load: begins to fetch the next checkpoint."""
        if self._left and self._left[0] not in self._threads:
            thread = Thread(target=self._fetch, args=(self._left[0],), name="demur-fetch-ahead", daemon=True)
            self._threads[self._left[0]] = thread
            thread.start()

    def freed(self, name: str) -> None:
        """Called after a checkpoint has left the memory: deletes its weights if no later step loads them, and if asked to."""
        if name in self._later_loads:
            self._later_loads[name] -= 1
            # Another checkpoint may have the same weights, for example without an adapter.
            same = [other for other in self._later_loads if self._sources[other] == self._sources[name]]
            if name in self._weights and not any(self._later_loads[other] for other in same):
                self._weights[name].delete()

    def close(self) -> None:
        """End a fetch that is going on. What has arrived is kept."""
        self._stop.set()
        for thread in self._threads.values():
            thread.join()

    def _fetch(self, name: str) -> None:
        with suppress(DemurError):
            fetch(self._sources[name], stop=self._stop)
