"""The jobs of a run: frozen values whose inputs are named by key. Any process can do a job, and doing it twice does no harm.

A job writes nothing. It gives records (`records.py`), and the driver stores them. `pending_jobs` lists the jobs that are left.
"""

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
from demur.runs.controls.control_jobs import (
    ArmControlsJob,
    AskedOfActivations,
    ControlJob,
    arm_controls,
    control_jobs,
    direction_key,
)
from demur.runs.extracting.cell_needs import (
    MeansName,
    cell_key,
    means_key,
    means_of,
    means_of_plan,
)
from demur.runs.job_inputs import JobStore
from demur.runs.store import Store
from demur.study.plan import Arm, Plan, PlannedCell, directions_of, main_directions, own_directions
from demur.study.planned.pairings import pairings
from demur.study.preflight import Ready
from demur.study.spec import Label, Study


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
class ExtractJob:
    """Read an arm's activations: make its directions, null directions and means, and measure the arm with its means.

    Attributes:
        arm: the arm's name.
        checkpoint: the checkpoint whose weights are needed.
        directions: names of the directions to make.
        measurements: what to measure of the arm as well.
        controls: the null directions and resamples to make from its activations.
        pairs_seed: the seed by which their training instructions are drawn; None for the first ones.
        means: labels of the instructions whose means are read at every layer and site.
    """

    arm: str
    checkpoint: str
    directions: tuple[str, ...]
    measurements: tuple[AskedMeasurement, ...] = ()
    controls: tuple[AskedOfActivations, ...] = ()
    pairs_seed: int | None = None
    means: tuple[Label, ...] = ()

    @property
    def key(self) -> str:
        """Names the job."""
        return f"extract {self.arm}" + ("" if self.pairs_seed is None else f" with pairs {self.pairs_seed}")

    @property
    def weights(self) -> tuple[str, ...]:
        """The checkpoints that must be loaded."""
        return (self.checkpoint,)

    @property
    def needs(self) -> tuple[str, ...]:
        """Keys of the stored inputs: directions that null directions belong to and that are stored already."""
        besides = dict.fromkeys(one.beside for one in self.controls)
        return tuple(direction_key(name) for name in besides if name not in self.directions)

    @property
    def gives(self) -> tuple[str, ...]:
        """Keys of what is stored afterwards."""
        made = (*self.directions, *(one.direction for one in self.controls))
        return (*map(direction_key, made), *(means_key((self.arm, label)) for label in self.means))


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
    """

    asked: AskedMeasurement
    subject: str
    arms: tuple[str, ...]
    checkpoints: tuple[str, ...]
    directions: tuple[str, ...] = ()
    cells: tuple[tuple[str, str], ...] = ()
    means: tuple[MeansName, ...] = ()

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
        return (*map(direction_key, self.directions), *map(means_key, self.means), *map(cell_key, self.read))

    @property
    def gives(self) -> tuple[str, ...]:
        """Keys of what is stored afterwards: nothing that another job needs."""
        return ()


@dataclass(frozen=True)
class GenerateJob:
    """Generate completions of many cells of one checkpoint. One job, because rows of one batch share prefixes.

    Attributes:
        checkpoint: the checkpoint whose weights are needed.
        rows: cell -> positions in its instruction set whose completions are missing.
        directions: names of the directions that the cells' edits read.
        means: the means that they read.
    """

    checkpoint: str
    rows: tuple[tuple[str, tuple[int, ...]], ...]
    directions: tuple[str, ...]
    means: tuple[MeansName, ...] = ()

    @property
    def key(self) -> str:
        """Names the job."""
        return f"generate {self.checkpoint}"

    @property
    def weights(self) -> tuple[str, ...]:
        """The checkpoints that must be loaded."""
        return (self.checkpoint,)

    @property
    def needs(self) -> tuple[str, ...]:
        """Keys of the stored inputs."""
        return (*map(direction_key, self.directions), *map(means_key, self.means))

    @property
    def gives(self) -> tuple[str, ...]:
        """Keys of what is stored afterwards."""
        return tuple(cell_key(cell) for cell, _ in self.rows)


Job = ExtractJob | ArmControlsJob | ControlJob | MeasureJob | GenerateJob


def canonical(settings: BaseModel | None) -> str:
    """Settings as JSON text that is equal for equal settings."""
    return json.dumps({} if settings is None else settings.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))


def asked_measurements(study: Study) -> tuple[AskedMeasurement, ...]:
    """The measurements that a study asks for."""
    return tuple(AskedMeasurement(spec.name, canonical(spec.parsed())) for spec in study.measurements)


def stored_keys(ready: Ready, store: JobStore) -> set[str]:
    """Keys of everything stored that a job may need: directions, means at every point, and cells that are complete."""
    counts = store.progress()
    complete = {cell.key for cell in ready.plan.cells if counts.get(cell.key, 0) >= len(ready.material[cell.instructions].test)}
    return {*map(direction_key, store.direction_names()), *map(means_key, store.complete_means()), *map(cell_key, complete)}


def pending_jobs(ready: Ready, store: Store, asked: Sequence[AskedMeasurement] | None = None) -> list[Job]:
    """The jobs whose records are not stored yet.

    Args:
        ready: the checked plan.
        store: the run folder.
        asked: the measurements to make; those of the study unless given.

    Returns:
        The jobs in an order in which they can be done: first those that read activations, then controls, completions, and
        measurements of cells and of pairs.
    """
    plan, stored = ready.plan, store.direction_names()
    unmeasured = _Unmeasured(asked_measurements(plan.study) if asked is None else tuple(asked), store.measured())
    known = store.complete_means()
    wanted = [name for name in means_of_plan(plan) if name not in known]
    jobs: list[Job] = []
    for arm in plan.arms:
        means = tuple(label for name, label in wanted if name == arm.name)
        for seed in plan.study.direction.seeds:
            own = own_directions(plan, arm, seed)
            missing, controls = tuple(name for name in own if name not in stored), arm_controls(plan, arm, seed, stored)
            # Measurements are made with the first seed, and so are the means. Arms with a small edit have no measurements.
            first = seed == plan.study.direction.seeds[0]
            pending = unmeasured.of("arm", arm.name) if first and not arm.spelling else ()
            if missing or (means and first):
                asked_means = means if first else ()
                jobs.append(ExtractJob(arm.name, arm.checkpoint, missing, pending, controls, seed, asked_means))
            else:
                jobs += [ArmControlsJob(arm.name, arm.checkpoint, controls, seed)] if controls else []
                read = main_directions(plan, arm) if pending else ()
                jobs += [MeasureJob(one, arm.name, (arm.name,), (arm.checkpoint,), read) for one in pending]
    return [
        *jobs,
        *control_jobs(plan, stored),
        *_generation(ready, store),
        *_cell_measurements(plan, unmeasured),
        *_pair_measurements(plan, unmeasured),
    ]


@dataclass(frozen=True)
class _Unmeasured:
    """What is still to be measured: what was asked for, and the versions of what is stored."""

    asked: tuple[AskedMeasurement, ...]
    measured: Mapping[tuple[str, str, str], int]

    def of(self, kind: str, subject: str) -> tuple[AskedMeasurement, ...]:
        found = ((one, measurement(one.name)) for one in self.asked)
        return tuple(
            one
            for one, known in found
            if known.subjects == kind and self.measured.get((one.name, subject, one.settings)) != known.version
        )


def _cell_measurements(plan: Plan, unmeasured: _Unmeasured) -> list[MeasureJob]:
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


def _pair_measurements(plan: Plan, unmeasured: _Unmeasured) -> list[MeasureJob]:
    """Every two arms that are measured together, in the order of the study."""
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


def _generation(ready: Ready, store: Store) -> list[GenerateJob]:
    plan, done, jobs = ready.plan, store.positions(), []
    for checkpoint in plan.study.checkpoints:
        rows: list[tuple[str, tuple[int, ...]]] = []
        directions: list[str] = []
        means: list[MeansName] = []
        for cell in plan.of(checkpoint):
            there = done.get(cell.key, set())
            missing = tuple(i for i in range(len(ready.material[cell.instructions].test)) if i not in there)
            if missing:
                rows.append((cell.key, missing))
                directions += directions_of(plan, cell)
                means += means_of(cell)
        if rows:
            reads = tuple(dict.fromkeys(directions)), tuple(dict.fromkeys(means))
            jobs.append(GenerateJob(checkpoint, tuple(rows), *reads))
    return jobs
