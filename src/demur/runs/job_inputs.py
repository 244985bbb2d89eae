"""The inputs of jobs by key: arms, cells, instructions, stored directions and completions. They are only read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from demur.analysis.manifest import ArmFacts
from demur.core.errors import WorkError
from demur.core.progress import Phases, no_phases
from demur.inputs.chat_templates import is_dated
from demur.inputs.prompt_formats import needs_tokenizer
from demur.inputs.prompts import Prompt, prompt_format
from demur.runs.extracting.cell_needs import GateName, MeansName, spread_layers
from demur.runs.rows import StoredCompletion, StoredMeans, StoredMeasurement
from demur.study.plan import Arm, PlannedCell, PlannedDirection
from demur.study.preflight import Ready
from demur.study.spec import Study

if TYPE_CHECKING:
    from demur.directions.direction import Direction
    from demur.engine.checkpoints import Checkpoint
    from demur.interventions.facts.stream_spread import StreamSpread
    from demur.interventions.stream_means import StreamMeans


class JobStore(Protocol):
    """Where jobs read what earlier jobs gave: the run folder, or a part of it that was sent to a worker."""

    @property
    def folder(self) -> Path:
        """The run folder, for messages."""
        ...

    def direction(self, name: str) -> "Direction | None":
        """A direction, or None."""
        ...

    def direction_file(self, name: str) -> bytes | None:
        """The content of a direction's file, or None."""
        ...

    def direction_names(self) -> set[str]:
        """Names of all directions that are there."""
        ...

    def means(self, arm: str | None = None, label: str | None = None) -> list[StoredMeans]:
        """The means of an arm and a label."""
        ...

    def complete_means(self) -> set[tuple[str, str]]:
        """Arm and label of the means that are there at every point of the stream."""
        ...

    def gate_names(self) -> set[GateName]:
        """Target arm and settings of the gates that are there."""
        ...

    def gate(self, name: GateName) -> StoredMeasurement | None:
        """A gate, or None."""
        ...

    def completions(self, cell: str | None = None) -> list[StoredCompletion]:
        """The completions of a cell, in the order of its instructions."""
        ...

    def progress(self) -> dict[str, int]:
        """Cell -> number of its completions that are there."""
        ...

    def arms(self) -> Sequence[ArmFacts]:
        """The arms that were loaded."""
        ...

    def earlier_tests(self) -> dict[str, dict[str, int]]:
        """Arm -> label -> number of test instructions over which its stored hash of token ids was taken, if the run grew."""
        ...


@dataclass(frozen=True, eq=False)
class JobInputs:
    """The inputs of a run's jobs.

    Attributes:
        ready: the checked plan with its instructions.
        store: what is stored, which is only read.
        device: the device on which checkpoints are loaded.
        phases: shows progress.
    """

    ready: Ready
    store: JobStore
    device: str = "auto"
    phases: Phases = no_phases

    @property
    def study(self) -> Study:
        """The study."""
        return self.ready.plan.study

    @cached_property
    def _arms(self) -> Mapping[str, Arm]:
        return {arm.name: arm for arm in self.ready.plan.arms}

    @cached_property
    def _cells(self) -> Mapping[str, PlannedCell]:
        return {cell.key: cell for cell in (*self.ready.plan.cells, *self.ready.plan.null_cells)}

    @cached_property
    def _directions(self) -> Mapping[str, PlannedDirection]:
        return {direction.name: direction for direction in self.ready.plan.directions}

    def arm(self, name: str) -> Arm:
        """The arm of a name."""
        return self._arms[name]

    def cell(self, key: str) -> PlannedCell:
        """The planned cell of a key."""
        return self._cells[key]

    def planned(self, name: str) -> PlannedDirection:
        """The planned direction of a name."""
        return self._directions[name]

    def direction(self, name: str) -> "Direction":
        """The stored direction of a name.

        Raises:
            WorkError: if it is not stored.
        """
        found = self.store.direction(name)
        if found is None:
            raise WorkError(f"direction {name!r} is missing from {str(self.store.folder)!r}; run the study again with --fresh")
        return found

    def means(self, name: MeansName) -> "StreamMeans | StreamSpread":
        """The stored means of an arm and a label, at every layer and site, or the stored spread of an arm and a layer.

        Raises:
            WorkError: if they are not stored.
        """
        from demur.runs.extracting.means_rows import means_of_row, spread_of_row  # imports torch

        found = [row for row in self.store.means(*name) if row.complete]
        if not found:
            raise WorkError(
                f"the {name[1]} means of {name[0]!r} are missing from {str(self.store.folder)!r}; run the study again"
            )
        read = spread_of_row if spread_layers([name[1]]) else means_of_row
        return read(found[0], self.store.folder)

    def completions(self, cell: str) -> list[StoredCompletion]:
        """The stored completions of a cell, in the order of its instructions."""
        return self.store.completions(cell)

    def prompt(self, arm: Arm, checkpoint: "Checkpoint") -> Prompt:
        """The prompt format of an arm with its checkpoint's tokenizer.

        If the template contains a date, the date of the first session is kept.

        Args:
            arm: the arm.
            checkpoint: its loaded checkpoint.
        """
        prompt = prompt_format(arm.spec, checkpoint, name=arm.prompt, control_tokens=self.study.control_tokens, system=arm.system)
        if not needs_tokenizer(arm.spec) or not is_dated(checkpoint.tokenizer):
            return prompt
        known = (each for each in self.store.arms() if (each.checkpoint, each.prompt) == (arm.checkpoint, arm.prompt))
        return replace(prompt, template=next((each.template for each in known), prompt.template))
