"""The plan of a study, made before anything is loaded: arms, directions and cells.

No file is read for it. A cell is the unit of work, of storage and of resumption. Its key says which edit is tried on which arm
and instruction set; all other settings are common to the cells of a study.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from pydantic import JsonValue

from demur.interventions.edit_kind import action_of, edit_kind
from demur.study.instruction_sets import expected_change
from demur.study.planned.direction_list import planned_directions
from demur.study.planned.planned_directions import Arm as Arm
from demur.study.planned.planned_directions import PlannedDirection as PlannedDirection
from demur.study.planned.planned_directions import PlannedSubspace as PlannedSubspace
from demur.study.planned.planned_directions import Used
from demur.study.planned.planned_gates import PlannedGate as PlannedGate
from demur.study.planned.planned_gates import planned_gate
from demur.study.planned.subspaces import used_by
from demur.study.shorthand.arm_names import are_named, prompt_name
from demur.study.shorthand.spelling_arms import format_of
from demur.study.spec import InterventionSpec, Study


@dataclass(frozen=True)
class PlannedCell:
    """Target arm x instruction set x intervention.

    Attributes:
        target: the arm that is edited and answers.
        instructions: the instruction set.
        intervention: the edit of the residual stream; None for a baseline.
        direction: the direction or subspace that the intervention uses; None for a baseline, and where the kind of edit needs
            none.
        gate: the condition on a prompt under which the edit acts; None if it always acts. Cells of null directions have the gate
            of the edit that they are a null for.
    """

    target: Arm
    instructions: str
    intervention: InterventionSpec | None
    direction: Used | None
    gate: PlannedGate | None = None

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
        where = f"sites {sites}, layers {layers}, {spec.positions}{settings}{'' if self.gate is None else self.gate.in_key}"
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
    directions = planned_directions(study, arms)
    uses = [used_by(study, spec, directions) if _takes_some(spec) else (None,) for spec in study.interventions]
    cells: dict[str, PlannedCell] = {}
    for arm in arms:
        for label in study.sets:
            wanted = [PlannedCell(arm, label, None, None), *_edited(study, arm, label, uses, directions)]
            cells.update((cell.key, cell) for cell in wanted)
    answered = tuple(cell for cell in cells.values() if cell.answered)
    others = tuple(cell for cell in cells.values() if not cell.answered and _expects(study, cell))
    return Plan(study, arms, directions, answered, others)


def _expects(study: Study, cell: PlannedCell) -> bool:
    """Whether a change is expected of the cell's edit, so that null directions have to be beaten there."""
    if cell.intervention is None:
        return False
    kind = edit_kind(cell.intervention.kind)
    action = action_of(kind, cell.intervention.dose, cell.intervention.settings)
    return bool(expected_change(kind, action, cell.instructions, study.instructions, cell.intervention.when))


def own_directions(plan: Plan, arm: Arm, seed: int | None) -> tuple[str, ...]:
    """The names of an arm's own directions from the training pairs of one seed: of every layer and estimator of the study."""
    return tuple(one.name for one in plan.directions if one.arm == arm and one.own and one.pairs_seed == seed)


def main_directions(plan: Plan, arm: Arm) -> tuple[str, ...]:
    """Those of the study's first seed and first estimator, one for each layer. Measurements are made with these."""
    first = plan.study.direction.seeds[0]
    return tuple(one.name for one in plan.directions if one.arm == arm and one.main and one.pairs_seed == first)


def directions_of(plan: Plan, cell: PlannedCell) -> tuple[str, ...]:
    """The names of the directions that a cell's edit and its gate need, with the one whose norm is the unit `residual`."""
    condition = () if cell.gate is None else (cell.gate.direction.name,)
    if cell.intervention is None or cell.direction is None:
        return condition
    read = tuple(dict.fromkeys((*(one.name for one in cell.direction.members), *condition)))
    if cell.intervention.coefficient is None or cell.intervention.unit != "residual":
        return read
    return tuple(dict.fromkeys((*read, residual_source(plan, cell))))


def residual_source(plan: Plan, cell: PlannedCell) -> str:
    """The name of the target's direction at the layer of an edit; its provenance has the mean residual norm there."""
    assert cell.direction is not None
    wanted = (cell.target, cell.direction.layer)
    return next(one.name for one in plan.directions if one.main and (one.arm, one.layer) == wanted)


def _arm(study: Study, checkpoint: str, spec: str) -> Arm:
    form = format_of(spec, study.prompts)
    return Arm(checkpoint, prompt_name(spec, study.prompts), form.spec, form.system)


def _takes_some(spec: InterventionSpec) -> bool:
    return edit_kind(spec.kind).artefact != "none"


def _edited(
    study: Study, arm: Arm, label: str, uses: Sequence[Sequence[Used | None]], directions: Sequence[PlannedDirection]
) -> Iterator[PlannedCell]:
    """The cells of one arm and instruction set under every intervention, with each direction that it uses."""
    for spec, used in zip(study.interventions, uses, strict=True):
        if label not in spec.on or not _asked(spec.targets, arm):
            continue
        gate = planned_gate(study, spec, arm, directions)
        wanted = (PlannedCell(arm, label, spec, each, gate) for each in used if each is None or _asked(spec.sources, each.arm))
        # Resamples are for the edits under test only.
        yield from (cell for cell in wanted if not cell.resampled or _expects(study, cell))


def _asked(names: list[str] | None, arm: Arm) -> bool:
    return not arm.spelling and are_named(names, arm.checkpoint, arm.prompt)
