"""The executor `local`: runs jobs in this process, one after another, and loads each checkpoint as rarely as memory allows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from demur.engine.checkpoints import Checkpoint
from demur.models import memory_budget
from demur.models.freed_memory import free_memory
from demur.runs.describe import loaded_record
from demur.runs.execution import load_named, run_job
from demur.runs.executors.checkpoint_sizes import checkpoint_sizes
from demur.runs.executors.fetch_ahead import FetchAhead
from demur.runs.job_inputs import JobInputs
from demur.runs.jobs import Job, stored_keys
from demur.runs.records import JobRecord
from demur.study.load_order import order_jobs


class InProcess:
    """Runs jobs in this process."""

    name: ClassVar[str] = "local"

    def __init__(self, given: Mapping[str, Checkpoint] | None = None, *, free_disk: bool = False) -> None:
        """Take checkpoints that are already in memory.

        Args:
            given: by their names in the study. They are used in place of loading, and not freed.
            free_disk: whether weights that this run fetches from the hub are deleted after the last job that needs them.
        """
        self._given, self._free_disk = dict(given or {}), free_disk

    def run(self, jobs: Sequence[Job], inputs: JobInputs) -> Iterator[JobRecord]:
        """Run jobs in an order with few loads; see `demur.study.load_order`.

        Args:
            jobs: the jobs.
            inputs: what jobs read by key.

        Yields:
            Records, as they are made.

        Raises:
            InputError: if a checkpoint cannot be loaded as it was asked for.
            WorkError: if the work fails.
        """
        loaded: dict[str, Checkpoint] = {}
        names = {name for job in jobs for name in job.weights}
        together = not self._free_disk and _fit(names, inputs)
        steps = order_jobs(jobs, stored_keys(inputs.ready, inputs.store), together=together)
        missing = {name: inputs.ready.sources[name] for name in names - self._given.keys()}
        ahead = FetchAhead(steps, missing, free_disk=self._free_disk)
        try:
            for step in steps:
                if step.action == "load":
                    with inputs.phases(f"loading {step.checkpoint}", 1) as progress:
                        ahead.wait_for(step.checkpoint)
                        loaded[step.checkpoint] = self._loaded(step.checkpoint, inputs)
                        progress(1)
                    ahead.loaded()
                    yield loaded_record(inputs, loaded[step.checkpoint], step.checkpoint)
                elif step.job is not None:
                    yield from run_job(step.job, inputs, loaded)
                else:
                    del loaded[step.checkpoint]
                    free_memory()
                    ahead.freed(step.checkpoint)
        finally:
            ahead.close()

    def _loaded(self, name: str, inputs: JobInputs) -> Checkpoint:
        if name not in self._given:
            return load_named(inputs.study, name, inputs.device)
        # Messages and directions have the name of the study.
        return replace(self._given[name], name=name)


def _fit(names: set[str], inputs: JobInputs) -> bool:
    """Whether all these checkpoints are known to fit into memory together."""
    sizes = checkpoint_sizes(names, inputs).values()
    return all(size is not None for size in sizes) and sum(size or 0 for size in sizes) <= memory_budget.available(inputs.device)
