"""What a study comes to before anything is loaded: arms, directions, cells, and the order in which checkpoints are loaded.

Pure arithmetic over the study. A cell is the unit of work, of storage and of resumption; its key says everything that its result
depends on within the study.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from demur.inputs.prompt_formats import format_name
from demur.study.spec import LABELS, InterventionSpec, Label, Study


@dataclass(frozen=True)
class Arm:
    """A prompt format applied to a checkpoint. `prompt` is the format's short name, `spec` what the study wrote."""

    checkpoint: str
    prompt: str
    spec: str

    @property
    def name(self) -> str:
        """Unique within a study."""
        return f"{self.checkpoint}/{self.prompt}"


@dataclass(frozen=True)
class PlannedDirection:
    """A direction that the study will have: one an arm and layer, and the controls, each `beside` the one whose norm it has."""

    name: str
    source: str
    arm: Arm
    layer: int
    beside: str | None = None

    @property
    def control(self) -> bool:
        """Is it a null direction?"""
        return self.beside is not None


@dataclass(frozen=True)
class PlannedCell:
    """Target arm x instruction set x intervention."""

    target: Arm
    instructions: Label
    intervention: InterventionSpec | None
    direction: PlannedDirection | None

    @property
    def key(self) -> str:
        """The same in every process: for storage and for finding the cell again."""
        if self.intervention is None or self.direction is None:
            return f"{self.target.name}|{self.instructions}|none"
        spec = self.intervention
        dose = "" if spec.coefficient is None else f" {spec.coefficient:g} {spec.unit}"
        sites = "own" if spec.sites is None else "+".join(spec.sites)
        layers = "own" if spec.layers is None else "+".join(map(str, spec.layers))
        where = f"sites {sites}, layers {layers}, {spec.positions}"
        return f"{self.target.name}|{self.instructions}|{spec.kind}{dose} {self.direction.name}|{where}"


@dataclass(frozen=True)
class Step:
    """One thing to do with one checkpoint: `load`, `extract`, `generate` or `free`."""

    action: str
    checkpoint: str


@dataclass(frozen=True)
class Plan:
    """All that a study comes to."""

    study: Study
    arms: tuple[Arm, ...]
    directions: tuple[PlannedDirection, ...]
    cells: tuple[PlannedCell, ...]

    def rows(self, cells: tuple[PlannedCell, ...] | None = None) -> int:
        """Completions to generate."""
        return sum(self.study.instructions[cell.instructions].test for cell in (self.cells if cells is None else cells))

    def of(self, checkpoint: str) -> tuple[PlannedCell, ...]:
        """The cells whose target is this checkpoint."""
        return tuple(cell for cell in self.cells if cell.target.checkpoint == checkpoint)

    def arms_of(self, checkpoint: str) -> tuple[Arm, ...]:
        """The arms of this checkpoint."""
        return tuple(arm for arm in self.arms if arm.checkpoint == checkpoint)


def make_plan(study: Study) -> Plan:
    """Every direction on every checkpoint, as far as the study's interventions ask for it."""
    arms = tuple(
        Arm(name, _prompt_name(study, spec), study.prompts.get(spec, spec))
        for name, checkpoint in study.checkpoints.items()
        for spec in checkpoint.prompts
    )
    found = [
        PlannedDirection(_direction_name(study, arm, layer), arm.checkpoint, arm, layer)
        for arm in arms
        for layer in study.direction.layers
    ]
    # Control k stands beside arm k, then around again: with two checkpoints and two controls each has its own.
    controls = [
        PlannedDirection(_layered(study, name, layer), name, arm, layer, _direction_name(study, arm, layer))
        for name, arm in ((f"random-{k + 1}", arms[k % len(arms)]) for k in range(study.controls.random))
        for layer in study.direction.layers
    ]
    directions = (*found, *controls)
    cells: dict[str, PlannedCell] = {}
    for arm in arms:
        for label in LABELS:
            wanted = [PlannedCell(arm, label, None, None)]
            wanted += [
                PlannedCell(arm, label, spec, direction)
                for spec in study.interventions
                for direction in directions
                if label in spec.on and _asked(spec.sources, direction.arm) and _asked(spec.targets, arm)
            ]
            cells.update((cell.key, cell) for cell in wanted)
    return Plan(study, arms, directions, tuple(cells.values()))


def _asked(names: list[str] | None, arm: Arm) -> bool:
    return names is None or arm.checkpoint in names


def _prompt_name(study: Study, spec: str) -> str:
    return spec if spec in study.prompts else format_name(spec)


def _direction_name(study: Study, arm: Arm, layer: int) -> str:
    single = len(study.checkpoints[arm.checkpoint].prompts) == 1
    return _layered(study, arm.checkpoint if single else f"{arm.checkpoint}.{arm.prompt}", layer)


def _layered(study: Study, name: str, layer: int) -> str:
    return name if len(study.direction.layers) == 1 else f"{name}.layer{layer}"


def order_steps(extract: Sequence[str], generate: Sequence[str], sizes: Mapping[str, int | None], memory: int) -> list[Step]:
    """Loads, extractions, generations and frees in order: every checkpoint once where all fit into `memory` bytes.

    Where they do not, or a size is unknown, one is held at a time; the last one extracted is generated from before it is freed,
    so n checkpoints take 2 n - 1 loads. All directions are there before the first generation.
    """
    names = {*extract, *generate}
    known = [sizes[name] for name in names]
    together = all(size is not None for size in known) and sum(size or 0 for size in known) <= memory
    steps: list[Step] = []
    held: list[str] = []
    for name in extract:
        steps += [Step("load", name), Step("extract", name)]
        if name in generate and (together or name == extract[-1]):
            held.append(name)
        else:
            steps.append(Step("free", name))
    for name in sorted(generate, key=lambda name: (name not in held, -[*generate].index(name))):
        if name not in held:
            steps.append(Step("load", name))
        steps += [Step("generate", name), Step("free", name)]
    return steps


def loads(steps: Sequence[Step]) -> int:
    """How often weights are read."""
    return sum(step.action == "load" for step in steps)
