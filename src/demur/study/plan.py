"""The plan of a study, made before anything is loaded: arms, directions and cells.

No file is read for it. A cell is the unit of work, of storage and of resumption. Its key says which edit is tried on which arm
and instruction set; all other settings are common to the cells of a study.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

from pydantic import JsonValue

from demur.directions.controls.control import control_kind
from demur.inputs.prompt_edits import MARK, is_edited
from demur.interventions.edit_kind import action_of
from demur.study.instruction_sets import expected_change
from demur.study.named_parts import named_edit
from demur.study.shorthand.arm_names import are_named, prompt_name
from demur.study.shorthand.spelling_arms import format_of
from demur.study.spec import InterventionSpec, Study


@dataclass(frozen=True)
class Arm:
    """A prompt format applied to a checkpoint.

    Attributes:
        checkpoint: the checkpoint's name.
        prompt: the format's short name.
        spec: the format as `demur.prompt_format` takes it: a name or a text.
        system: its system sentence; None if it has none.
    """

    checkpoint: str
    prompt: str
    spec: str
    system: str | None = None

    @property
    def name(self) -> str:
        """Unique within a study."""
        return f"{self.checkpoint}/{self.prompt}"

    @property
    def spelling(self) -> bool:
        """Whether its format is another one with a small edit. Such an arm is only asked without an edit of the stream."""
        return is_edited(self.prompt)


@dataclass(frozen=True)
class PlannedDirection:
    """A direction that the study will have: one for each arm and layer, their resamples, and the controls.

    Attributes:
        name: unique within a study.
        source: the checkpoint that it is extracted from, or the control's name without a layer.
        arm: the arm that it is extracted from; of a control, the arm of the direction that it is made for.
        layer: the layer at which it is read.
        beside: for a control, the direction that it is a control for; else None.
        control_kind: of a control, its kind as the study names it; else empty.
        number: of a control, which of its kind for this direction it is, from 0.
        answered: whether completions are made with it.
        pairs_seed: the seed by which its training instructions are drawn; None for the first ones of the set.
        resample_of: for a direction from a resample of the training pairs, the direction from all of them; else None.
        resample: for such a direction, which resample it is, from 1; else 0.
    """

    name: str
    source: str
    arm: Arm
    layer: int
    beside: str | None = None
    control_kind: str = ""
    number: int = 0
    answered: bool = True
    pairs_seed: int | None = None
    resample_of: str | None = None
    resample: int = 0

    @property
    def own(self) -> bool:
        """Whether it is an arm's own direction from all training pairs: neither a null direction nor a resample."""
        return self.beside is None and self.resample_of is None

    @property
    def control(self) -> bool:
        """Whether it is a null direction."""
        return self.beside is not None

    @property
    def from_activations(self) -> bool:
        """Whether it is a control or a resample that is made from the training activations of its arm."""
        return self.resample_of is not None or (self.control and control_kind(self.control_kind).needs == "activations")

    @property
    def control_name(self) -> str:
        """For a control, the name of its kind as sentences and names of directions use it; else empty."""
        return control_kind(self.control_kind).name if self.control_kind else ""


@dataclass(frozen=True)
class PlannedCell:
    """Target arm x instruction set x intervention.

    Attributes:
        target: the arm that is edited and answers.
        instructions: the instruction set.
        intervention: the edit of the residual stream; None for a baseline.
        direction: the direction that the intervention uses; None for a baseline, and where the kind of edit needs none.
    """

    target: Arm
    instructions: str
    intervention: InterventionSpec | None
    direction: PlannedDirection | None

    @property
    def answered(self) -> bool:
        """Whether it has completions."""
        return self.direction is None or self.direction.answered

    @property
    def resampled(self) -> bool:
        """Whether its direction is from a resample of the training pairs."""
        return self.direction is not None and self.direction.resample_of is not None

    @cached_property
    def key(self) -> str:
        """The cell's name in the store, the same in every process. It includes the settings of the kind that are not defaults."""
        if self.intervention is None:
            return f"{self.target.name}|{self.instructions}|none"
        spec = self.intervention
        dose = "" if spec.dose is None else f" {spec.dose:g} {spec.unit}"
        direction = "" if self.direction is None else f" {self.direction.name}"
        sites = "own" if spec.sites is None else "+".join(spec.sites)
        layers = "own" if spec.layers is None else "+".join(map(str, spec.layers))
        settings = "".join(f", {key} {_written(value)}" for key, value in sorted(spec.changed_settings.items()))
        where = f"sites {sites}, layers {layers}, {spec.positions}{settings}"
        return f"{self.target.name}|{self.instructions}|{spec.kind}{dose}{direction}|{where}"


def _written(value: JsonValue) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


@dataclass(frozen=True)
class Plan:
    """All arms, directions and cells of a study.

    Attributes:
        study: the study.
        arms: its arms.
        directions: its directions, null directions last.
        cells: the cells that have completions.
        null_cells: cells of null directions and of resamples without completions, of which only the refusal probability is
            measured.
    """

    study: Study
    arms: tuple[Arm, ...]
    directions: tuple[PlannedDirection, ...]
    cells: tuple[PlannedCell, ...]
    null_cells: tuple[PlannedCell, ...] = ()

    def rows(self, cells: tuple[PlannedCell, ...] | None = None) -> int:
        """The number of completions to generate, for some cells or for all."""
        return sum(self.study.instructions[cell.instructions].test for cell in (self.cells if cells is None else cells))

    def of(self, checkpoint: str) -> tuple[PlannedCell, ...]:
        """The cells whose target is this checkpoint."""
        return tuple(cell for cell in self.cells if cell.target.checkpoint == checkpoint)

    def arms_of(self, checkpoint: str) -> tuple[Arm, ...]:
        """The arms of this checkpoint."""
        return tuple(arm for arm in self.arms if arm.checkpoint == checkpoint)

    @property
    def spelling_cells(self) -> tuple[PlannedCell, ...]:
        """The cells of arms with a small edit of their format."""
        return tuple(cell for cell in self.cells if cell.target.spelling)

    @property
    def main_arms(self) -> tuple[Arm, ...]:
        """The arms whose formats have no small edit: those with edits of the stream, null directions and measurements."""
        return tuple(arm for arm in self.arms if not arm.spelling)


def make_plan(study: Study) -> Plan:
    """The plan of a study: every direction on every checkpoint, unless interventions name sources or targets.

    Args:
        study: the study.

    Returns:
        Its arms, directions and cells, in the order of the study.

    Raises:
        InputError: for a prompt format that does not exist.
    """
    arms = tuple(_arm(study, name, spec) for name, checkpoint in study.checkpoints.items() for spec in checkpoint.prompts)
    found = [
        PlannedDirection(_direction_name(study, arm, layer, seed), arm.checkpoint, arm, layer, pairs_seed=seed)
        for arm in arms
        for layer in study.direction.places
        for seed in study.direction.seeds
    ]
    resampled = [one for each in found for one in _resamples(study, each)]
    directions = (*found, *resampled, *_controls(study, arms))
    cells: dict[str, PlannedCell] = {}
    for arm in arms:
        for label in study.sets:
            wanted = [PlannedCell(arm, label, None, None), *_edited(study, arm, label, directions)]
            cells.update((cell.key, cell) for cell in wanted)
    answered = tuple(cell for cell in cells.values() if cell.answered)
    others = tuple(cell for cell in cells.values() if not cell.answered and _expects(study, cell))
    return Plan(study, arms, directions, answered, others)


def _expects(study: Study, cell: PlannedCell) -> bool:
    """Whether a change is expected of the cell's edit, so that null directions have to be beaten there."""
    if cell.intervention is None:
        return False
    kind = named_edit(cell.intervention.kind)
    action = action_of(kind, cell.intervention.dose, cell.intervention.settings)
    return bool(expected_change(kind, action, cell.instructions, study.instructions))


def own_directions(plan: Plan, arm: Arm, seed: int | None) -> tuple[str, ...]:
    """The names of an arm's own directions from the training pairs of one seed, one for each layer of the study."""
    return tuple(one.name for one in plan.directions if one.arm == arm and one.own and one.pairs_seed == seed)


def main_directions(plan: Plan, arm: Arm) -> tuple[str, ...]:
    """The same for the study's first seed. Measurements are made with these."""
    return own_directions(plan, arm, plan.study.direction.seeds[0])


def directions_of(plan: Plan, cell: PlannedCell) -> tuple[str, ...]:
    """The names of the directions that a cell's edit needs, including the one that gives the norm for the unit `residual`."""
    if cell.intervention is None or cell.direction is None:
        return ()
    if cell.intervention.coefficient is None or cell.intervention.unit != "residual":
        return (cell.direction.name,)
    return tuple(dict.fromkeys((cell.direction.name, residual_source(plan, cell))))


def residual_source(plan: Plan, cell: PlannedCell) -> str:
    """The name of the target's direction at the layer of an edit; its provenance has the mean residual norm there."""
    assert cell.direction is not None
    wanted = (cell.target, cell.direction.layer)
    return next(one.name for one in plan.directions if one.own and (one.arm, one.layer) == wanted)


def _arm(study: Study, checkpoint: str, spec: str) -> Arm:
    form = format_of(spec, study.prompts)
    return Arm(checkpoint, prompt_name(spec, study.prompts), form.spec, form.system)


def _controls(study: Study, arms: tuple[Arm, ...]) -> Iterator[PlannedDirection]:
    """Control k of a kind is made for the direction of arm k. If there are more controls than arms, the arms are repeated.

    Arms with a small edit have none.
    """
    arms = tuple(arm for arm in arms if not arm.spelling)
    for kind, count in study.controls.counts.items():
        for number in range(count):
            name, arm = f"{control_kind(kind).name}-{number + 1}", arms[number % len(arms)]
            for layer, seed in product(study.direction.places, study.direction.seeds):
                beside, answered = _direction_name(study, arm, layer, seed), study.controls.answered(number)
                placed = _placed(study, name, layer, seed)
                yield PlannedDirection(placed, name, arm, layer, beside, kind, number // len(arms), answered, seed)


def _resamples(study: Study, own: PlannedDirection) -> Iterator[PlannedDirection]:
    """The same direction from resamples of its training pairs. Those of further seeds have none, as they are draws already."""
    if own.pairs_seed != study.direction.seeds[0] or own.arm.spelling:
        return
    for number in range(1, study.direction.resamples + 1):
        yield replace(
            own,
            name=f"{own.name}.resample{number}",
            answered=study.direction.resample_completions,
            resample_of=own.name,
            resample=number,
        )


def _edited(study: Study, arm: Arm, label: str, directions: tuple[PlannedDirection, ...]) -> Iterator[PlannedCell]:
    """The cells of one arm and instruction set under every intervention."""
    for spec in study.interventions:
        if label not in spec.on or not _asked(spec.targets, arm):
            continue
        if named_edit(spec.kind).artefact == "none":
            yield PlannedCell(arm, label, spec, None)
        else:
            wanted = (PlannedCell(arm, label, spec, each) for each in directions if _asked(spec.sources, each.arm))
            # Resamples are for the edits under test only.
            yield from (cell for cell in wanted if not cell.resampled or _expects(study, cell))


def _asked(names: list[str] | None, arm: Arm) -> bool:
    return not arm.spelling and are_named(names, arm.checkpoint, arm.prompt)


def _direction_name(study: Study, arm: Arm, layer: int, seed: int | None) -> str:
    single = not arm.spelling and sum(not is_edited(one) for one in study.checkpoints[arm.checkpoint].prompts) == 1
    # Names of directions are parts of file names, in which the mark of a small edit is not allowed.
    prompt = arm.prompt.replace(MARK, ".")
    return _placed(study, arm.checkpoint if single else f"{arm.checkpoint}.{prompt}", layer, seed)


def _placed(study: Study, name: str, layer: int, seed: int | None) -> str:
    """A direction's name, with its seed and its layer where the study has several."""
    drawn = name if len(study.direction.seeds) == 1 else f"{name}.pairs{seed}"
    return drawn if len(study.direction.places) == 1 else f"{drawn}.layer{layer}"
