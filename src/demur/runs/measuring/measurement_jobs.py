"""The jobs that measure, and which measurements are left: of arms, of cells, and of pairs of arms."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel

from demur.measurements.measurement import (
    MeasuresTogether,
    measurement,
    measures_cell,
    measures_pair,
    reads_completions,
    reference_of,
)
from demur.runs.controls.control_jobs import direction_key
from demur.runs.extracting.cell_needs import GateName, MeansName, cell_key, gate_key, gates_of, means_key, means_of
from demur.study.plan import Arm, Plan, PlannedCell, directions_of, main_directions
from demur.study.planned.measured_arms import measures_arm
from demur.study.planned.pairings import pairings
from demur.study.spec import Study


@dataclass(frozen=True)
class AskedMeasurement:
    """A measurement that a study asks for.

    Attributes:
        name: the measurement.
        settings: its settings as canonical JSON, defaults included.
    """

    name: str
    settings: str = "{}"

    def parsed(self) -> BaseModel | None:
        """The settings as the measurement's own model; None if it has none."""
        model = measurement(self.name).settings
        return None if model is None else model.model_validate_json(self.settings)


@dataclass(frozen=True)
class MeasureJob:
    """Make one measurement of one subject, or of several cells of one arm.

    Attributes:
        asked: the measurement with its settings.
        subject: the arm, pair of arms or cell, by name; the arm of several cells.
        arms: the names of the arms that take part: one, or two for a pair and for cells that are compared with a reference.
        checkpoints: their checkpoints, whose weights are needed.
        directions: names of the directions that are read.
        cells: the key of each cell that is measured, with that of the cell whose completions are read for it.
        means: the means that are read.
        gates: the gates of the cells' edits.
    """

    asked: AskedMeasurement
    subject: str
    arms: tuple[str, ...]
    checkpoints: tuple[str, ...]
    directions: tuple[str, ...] = ()
    cells: tuple[tuple[str, str], ...] = ()
    means: tuple[MeansName, ...] = ()
    gates: tuple[GateName, ...] = ()

    @property
    def key(self) -> str:
        """Names the job."""
        return f"measure {self.asked.name} {self.asked.settings} of {self.subject}"

    @property
    def weights(self) -> tuple[str, ...]:
        """The checkpoints that must be loaded."""
        return self.checkpoints

    @property
    def read(self) -> tuple[str, ...]:
        """The keys of the cells whose completions are read."""
        own = reads_completions(self.asked.name)
        return tuple(dict.fromkeys(key for pair in self.cells for key in (pair if own else pair[1:])))

    @property
    def needs(self) -> tuple[str, ...]:
        """Keys of the stored inputs."""
        named = (*map(direction_key, self.directions), *map(means_key, self.means), *map(gate_key, self.gates))
        return (*named, *map(cell_key, self.read))

    @property
    def gives(self) -> tuple[str, ...]:
        """Keys of what is stored afterwards: nothing that another job needs."""
        return ()


def canonical(settings: BaseModel | None) -> str:
    """Settings as JSON text that is equal for equal settings."""
    return json.dumps({} if settings is None else settings.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))


def asked_measurements(study: Study) -> tuple[AskedMeasurement, ...]:
    """The measurements that a study asks for."""
    return tuple(AskedMeasurement(spec.name, canonical(spec.parsed())) for spec in study.measurements)


@dataclass(frozen=True)
class Unmeasured:
    """What is still to be measured.

    Attributes:
        asked: what was asked for.
        measured: the versions of what is stored, by measurement, subject and settings.
    """

    asked: tuple[AskedMeasurement, ...]
    measured: Mapping[tuple[str, str, str], int]

    def of_arm(self, arm: Arm) -> tuple[AskedMeasurement, ...]:
        """The measurements of arms that are not stored of this arm."""
        mine = self.of("arm", arm.name)
        return tuple(one for one in mine if measures_arm(measurement(one.name), one.parsed(), arm.checkpoint))

    def of(self, kind: str, subject: str) -> tuple[AskedMeasurement, ...]:
        """The measurements of this kind of subject that are not stored of this subject."""
        found = ((one, measurement(one.name)) for one in self.asked)
        return tuple(
            one
            for one, known in found
            if known.subjects == kind and self.measured.get((one.name, subject, one.settings)) != known.version
        )


def cell_measurements(plan: Plan, unmeasured: Unmeasured) -> list[MeasureJob]:
    """The jobs that measure cells."""
    baseline = {(cell.target, cell.instructions): cell.key for cell in plan.cells if cell.intervention is None}
    jobs: dict[tuple[AskedMeasurement, str], list[PlannedCell]] = {}
    for cell in (*plan.cells, *plan.null_cells):
        for one in unmeasured.of("cell", cell.key):
            # Null directions without completions and resamples have only the refusal probability.
            if not measures_cell(one.name, cell.intervention is not None, cell.answered and not cell.resampled):
                continue
            together = isinstance(measurement(one.name), MeasuresTogether)
            jobs.setdefault((one, cell.target.name if together else cell.key), []).append(cell)
    made = []
    for (one, subject), cells in jobs.items():
        arms = (cells[0].target, *_reference(plan, one, cells[0].target))
        made.append(
            MeasureJob(
                one,
                subject,
                tuple(arm.name for arm in arms),
                tuple(dict.fromkeys(arm.checkpoint for arm in arms)),
                tuple(dict.fromkeys([*_of_cells(plan, cells), *(name for arm in arms for name in main_directions(plan, arm))])),
                tuple((cell.key, baseline[cell.target, cell.instructions]) for cell in cells),
                tuple(dict.fromkeys(name for cell in cells for name in means_of(cell))),
                tuple(dict.fromkeys(name for cell in cells for name in gates_of(cell))),
            )
        )
    return made


def _of_cells(plan: Plan, cells: Sequence[PlannedCell]) -> list[str]:
    return [name for cell in cells for name in directions_of(plan, cell)]


def _reference(plan: Plan, asked: AskedMeasurement, target: Arm) -> tuple[Arm, ...]:
    """The arm of the further checkpoint that a measurement needs: under the target's format if it has it, else its first."""
    name = reference_of(measurement(asked.name), asked.parsed(), tuple(plan.study.checkpoints))
    if name is None or name == target.checkpoint:
        return ()
    arms = plan.arms_of(name)
    return (next((arm for arm in arms if arm.prompt == target.prompt), arms[0]),)


def pair_measurements(plan: Plan, unmeasured: Unmeasured) -> list[MeasureJob]:
    """The jobs that measure pairs of arms: every two that are measured together, in the order of the study."""
    jobs = []
    for pair in pairings(plan):
        arms = (pair.first, pair.second)
        names = tuple(arm.checkpoint for arm in arms)
        directions = tuple(name for arm in arms for name in main_directions(plan, arm))
        jobs += [
            MeasureJob(one, pair.subject, tuple(arm.name for arm in arms), tuple(dict.fromkeys(names)), directions)
            for one in unmeasured.of("pair", pair.subject)
            if measures_pair(measurement(one.name), *names, one_format=pair.one_format)
        ]
    return jobs
