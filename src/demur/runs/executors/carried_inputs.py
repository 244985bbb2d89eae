"""What one job reads, taken out of the run folder, so that it can be sent to a worker that cannot read the folder itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from demur.analysis.manifest import ArmFacts
from demur.runs.controls.control_jobs import direction_key
from demur.runs.extracting.cell_needs import GateName, cell_key, gate_key, means_key
from demur.runs.job_inputs import JobInputs
from demur.runs.jobs import ExtractJob, Job
from demur.runs.rows import StoredCompletion, StoredMeans, StoredMeasurement
from demur.study.plan import main_directions

if TYPE_CHECKING:
    from demur.directions.direction import Direction


@dataclass(frozen=True, eq=False)
class CarriedInputs:
    """The stored inputs of one job. It is a `JobStore`, and it can be pickled.

    Attributes:
        folder: the run folder, for messages only.
        files: the content of each direction's file, by name.
        read: the means, by arm and label.
        written: the completions of each cell.
        known: the arms that were loaded before.
        tests: as `earlier_tests` gives them.
        gates: the gates, by target arm and settings.
    """

    folder: Path
    files: Mapping[str, bytes]
    read: Mapping[tuple[str, str], StoredMeans]
    written: Mapping[str, list[StoredCompletion]]
    known: Sequence[ArmFacts]
    tests: dict[str, dict[str, int]]
    gates: Mapping[GateName, StoredMeasurement]

    def direction(self, name: str) -> "Direction | None":
        """A direction, or None if it was not sent."""
        from demur.directions.files.safetensors_file import from_bytes  # imports torch

        return from_bytes(self.files[name], f"direction {name}") if name in self.files else None

    def direction_names(self) -> set[str]:
        """Names of the directions that were sent."""
        return set(self.files)

    def direction_file(self, name: str) -> bytes | None:
        """The content of a direction's file, or None if it was not sent."""
        return self.files.get(name)

    def means(self, arm: str | None = None, label: str | None = None) -> list[StoredMeans]:
        """The means that were sent, of one arm and label or of all."""
        return [one for key, one in self.read.items() if arm in (None, key[0]) and label in (None, key[1])]

    def complete_means(self) -> set[tuple[str, str]]:
        """Arm and label of the means that were sent and are complete."""
        return {key for key, one in self.read.items() if one.complete}

    def gate_names(self) -> set[GateName]:
        """Target arm and settings of the gates that were sent."""
        return set(self.gates)

    def gate(self, name: GateName) -> StoredMeasurement | None:
        """A gate, or None if it was not sent."""
        return self.gates.get(name)

    def completions(self, cell: str | None = None) -> list[StoredCompletion]:
        """The completions that were sent, of one cell or of all."""
        return [row for key, rows in self.written.items() if cell in (None, key) for row in rows]

    def progress(self) -> dict[str, int]:
        """Cell -> number of its completions that were sent."""
        return {cell: len(rows) for cell, rows in self.written.items()}

    def arms(self) -> Sequence[ArmFacts]:
        """The arms that were loaded before."""
        return self.known

    def earlier_tests(self) -> dict[str, dict[str, int]]:
        """Arm -> label -> number of test instructions over which its stored hash was taken, if the run grew."""
        return self.tests


def carried(job: Job, inputs: JobInputs) -> CarriedInputs:
    """Take what a job reads out of the run folder.

    Args:
        job: the job. Everything that it needs is stored.
        inputs: the inputs of the run's jobs.

    Returns:
        What the job reads.
    """
    store, plan, needed = inputs.store, inputs.ready.plan, set(job.needs)
    names = [name for name in store.direction_names() if direction_key(name) in needed]
    if isinstance(job, ExtractJob) and job.measurements:
        # The arm is measured with all of its directions, also those that are stored already.
        own = main_directions(plan, inputs.arm(job.arm))
        names += [name for name in own if name not in job.directions and name in store.direction_names()]
    means = [name for name in store.complete_means() if means_key(name) in needed]
    cells = [cell.key for cell in plan.cells if cell_key(cell.key) in needed]
    return CarriedInputs(
        folder=store.folder,
        files={name: content for name in dict.fromkeys(names) if (content := store.direction_file(name)) is not None},
        read={(arm, label): found for arm, label in means for found in store.means(arm, label)},
        written={cell: store.completions(cell) for cell in cells},
        known=tuple(store.arms()),
        tests=store.earlier_tests(),
        gates={name: one for name in store.gate_names() if gate_key(name) in needed and (one := store.gate(name)) is not None},
    )
