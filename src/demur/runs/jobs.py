"""The jobs of a run: frozen values whose inputs are named by key. Any process can do a job, and doing it twice does no harm.

A job writes nothing. It gives records (`records.py`), and the driver stores them. `pending_jobs` lists the jobs that are left.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from demur.runs.conditions.gate_jobs import GateJob, gate_jobs
from demur.runs.controls.control_jobs import (
    ArmControlsJob,
    AskedOfActivations,
    ControlJob,
    arm_controls,
    control_jobs,
    direction_key,
)
from demur.runs.extracting.cell_needs import (
    GateName,
    MeansName,
    cell_key,
    gate_key,
    gates_of,
    means_key,
    means_of,
    means_of_plan,
)
from demur.runs.job_inputs import JobStore
from demur.runs.measuring.measurement_jobs import AskedMeasurement as AskedMeasurement
from demur.runs.measuring.measurement_jobs import MeasureJob as MeasureJob
from demur.runs.measuring.measurement_jobs import Unmeasured, cell_measurements, pair_measurements
from demur.runs.measuring.measurement_jobs import asked_measurements as asked_measurements
from demur.runs.measuring.measurement_jobs import canonical as canonical
from demur.runs.store import Store
from demur.study.plan import directions_of, main_directions, own_directions
from demur.study.preflight import Ready


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
        means: labels of the instructions whose means are read at every layer and site, and the spreads that are read.
    """

    arm: str
    checkpoint: str
    directions: tuple[str, ...]
    measurements: tuple[AskedMeasurement, ...] = ()
    controls: tuple[AskedOfActivations, ...] = ()
    pairs_seed: int | None = None
    means: tuple[str, ...] = ()

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
class GenerateJob:
    """Generate completions of many cells of one checkpoint. One job, because rows of one batch share prefixes.

    Attributes:
        checkpoint: the checkpoint whose weights are needed.
        rows: cell -> positions in its instruction set whose completions are missing.
        directions: names of the directions that the cells' edits read.
        means: the means that they read.
        gates: their gates.
    """

    checkpoint: str
    rows: tuple[tuple[str, tuple[int, ...]], ...]
    directions: tuple[str, ...]
    means: tuple[MeansName, ...] = ()
    gates: tuple[GateName, ...] = ()

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
        return (*map(direction_key, self.directions), *map(means_key, self.means), *map(gate_key, self.gates))

    @property
    def gives(self) -> tuple[str, ...]:
        """Keys of what is stored afterwards."""
        return tuple(cell_key(cell) for cell, _ in self.rows)


Job = ExtractJob | ArmControlsJob | ControlJob | GateJob | MeasureJob | GenerateJob


def stored_keys(ready: Ready, store: JobStore) -> set[str]:
    """Keys of everything stored that a job may need: directions, means at every point, gates, and cells that are complete."""
    counts = store.progress()
    complete = {cell.key for cell in ready.plan.cells if counts.get(cell.key, 0) >= len(ready.material[cell.instructions].test)}
    means, gates = map(means_key, store.complete_means()), map(gate_key, store.gate_names())
    return {*map(direction_key, store.direction_names()), *means, *gates, *map(cell_key, complete)}


def pending_jobs(ready: Ready, store: Store, asked: Sequence[AskedMeasurement] | None = None) -> list[Job]:
    """The jobs whose records are not stored yet.

    Args:
        ready: the checked plan.
        store: the run folder.
        asked: the measurements to make; those of the study unless given.

    Returns:
        The jobs in an order in which they can be done: first those that read activations, then controls, gates, completions, and
        measurements of cells and of pairs.
    """
    plan, stored = ready.plan, store.direction_names()
    unmeasured = Unmeasured(asked_measurements(plan.study) if asked is None else tuple(asked), store.measured())
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
            pending = unmeasured.of_arm(arm) if first and not arm.spelling else ()
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
        *gate_jobs(plan, store.gate_names()),
        *_generation(ready, store),
        *cell_measurements(plan, unmeasured),
        *pair_measurements(plan, unmeasured),
    ]


def _generation(ready: Ready, store: Store) -> list[GenerateJob]:
    plan, done, jobs = ready.plan, store.positions(), []
    for checkpoint in plan.study.checkpoints:
        rows: list[tuple[str, tuple[int, ...]]] = []
        directions: list[str] = []
        means: list[MeansName] = []
        gates: list[GateName] = []
        for cell in plan.of(checkpoint):
            there = done.get(cell.key, set())
            missing = tuple(i for i in range(len(ready.material[cell.instructions].test)) if i not in there)
            if missing:
                rows.append((cell.key, missing))
                directions += directions_of(plan, cell)
                means += means_of(cell)
                gates += gates_of(cell)
        if rows:
            reads = tuple(dict.fromkeys(directions)), tuple(dict.fromkeys(means)), tuple(dict.fromkeys(gates))
            jobs.append(GenerateJob(checkpoint, tuple(rows), *reads))
    return jobs
