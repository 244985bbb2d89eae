"""About how many prompts the measurements of a study run through a checkpoint."""

from collections.abc import Iterator
from dataclasses import dataclass

from demur.measurements.measurement import (
    SUBJECTS,
    CountsPrompts,
    Measurement,
    PlannedSubject,
    SubjectKind,
    measurement,
    measures_cell,
    measures_pair,
)
from demur.study.plan import Plan
from demur.study.planned.measured_arms import measures_arm
from demur.study.planned.pairings import pairings


@dataclass(frozen=True)
class MeasuredPrompts:
    """About how many prompts measurements run through one checkpoint, by the kind of what is measured.

    Attributes:
        arm: of measurements of arms.
        cell: of measurements of cells.
        pair: of measurements of pairs.
    """

    arm: float = 0.0
    cell: float = 0.0
    pair: float = 0.0

    @property
    def all(self) -> float:
        """The sum."""
        return self.arm + self.cell + self.pair


NO_PROMPTS = MeasuredPrompts()
"""Of work without measurements."""


def measured_prompts(plan: Plan, checkpoint: str, layers: int | None) -> MeasuredPrompts:
    """Count the prompts that the measurements run through a checkpoint.

    Args:
        plan: the plan.
        checkpoint: the checkpoint.
        layers: its number of layers; None if not known.

    Returns:
        The numbers of prompts. Measurements that do not say how many they run count as none.
    """
    counted: dict[SubjectKind, float] = dict.fromkeys(SUBJECTS, 0.0)
    for spec in plan.study.measurements:
        found = measurement(spec.name)
        if isinstance(found, CountsPrompts):
            settings = spec.parsed()
            if found.subjects == "arm" and not measures_arm(found, settings, checkpoint):
                continue
            subjects = _subjects(found, plan, checkpoint, layers)
            counted[found.subjects] += sum(found.prompts(settings, subject) for subject in subjects)
    return MeasuredPrompts(**counted)


def _subjects(found: Measurement, plan: Plan, checkpoint: str, layers: int | None) -> Iterator[PlannedSubject]:
    """The subjects of a measurement of which this checkpoint is a part, once for each arm of it."""
    study = plan.study
    whole = PlannedSubject({name: study.instructions[name].test for name in study.sets}, 2 * study.direction.pairs, layers)
    if found.subjects == "arm":
        yield from (whole for arm in plan.main_arms if arm.checkpoint == checkpoint)
    elif found.subjects == "cell":
        for cell in (*plan.cells, *plan.null_cells):
            edited, answered = cell.intervention is not None, cell.answered and not cell.resampled
            if cell.target.checkpoint == checkpoint and not cell.target.spelling and measures_cell(found.name, edited, answered):
                own = {cell.instructions: study.instructions[cell.instructions].test}
                yield PlannedSubject(own, whole.training, layers, edited)
    else:
        for pair in pairings(plan):
            if measures_pair(found, pair.first.checkpoint, pair.second.checkpoint, one_format=pair.one_format):
                yield from (whole for arm in (pair.first, pair.second) if arm.checkpoint == checkpoint)
