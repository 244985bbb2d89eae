"""Lists the directions that a study will have: those of its arms by every estimator, their resamples, and null directions."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import NamedTuple

from demur.directions.controls.control import TextControl, control_kind
from demur.inputs.prompt_edits import MARK, is_edited
from demur.study.planned.planned_directions import Arm, PlannedDirection
from demur.study.spec import InterventionSpec, Study
from demur.study.tables.direction_uses import estimators_of, span_of
from demur.study.tables.estimator_tables import short_name


class _Found(NamedTuple):
    """One of the directions that a study finds at one layer of one arm: its estimator, empty for the first, and its part."""

    estimator: str = ""
    part: int = 0

    @property
    def suffix(self) -> str:
        """What it adds to the name of the direction of the first estimator."""
        return estimator_suffix(self.estimator) + (f".part{self.part}" if self.part else "")


def estimator_suffix(estimator: str) -> str:
    """What an estimator adds to names of directions; nothing for the first of a study, whose name is empty here."""
    return f".{short_name(estimator)}" if estimator else ""


def planned_directions(study: Study, arms: tuple[Arm, ...]) -> tuple[PlannedDirection, ...]:
    """All directions of a study: those of the arms, then resamples, then controls.

    Args:
        study: the study.
        arms: its arms.
    """
    found = [
        PlannedDirection(
            placed_name(study, arm_direction(study, arm), layer, seed, each.suffix),
            arm.checkpoint,
            arm,
            layer,
            pairs_seed=seed,
            estimator=each.estimator,
            part=each.part,
        )
        for arm in arms
        for layer in study.direction.places
        for seed in study.direction.seeds
        # Arms with a small edit of their format have no edits of the stream, so one direction is enough for them.
        for each in ([_Found()] if arm.spelling else _all_found(study))
    ]
    return (*found, *(one for each in found for one in _resamples(study, each)), *_controls(study, arms))


def _all_found(study: Study) -> list[_Found]:
    found = [_Found()]
    for one in study.direction.further_estimators:
        parts = range(1, one.directions + 1) if one.directions > 1 else [0]
        found += [_Found(one.name, part) for part in parts]
    return found


def _resamples(study: Study, own: PlannedDirection) -> Iterator[PlannedDirection]:
    """The same direction from resamples of its training pairs. Those of further seeds have none, as they are draws already."""
    if own.pairs_seed != study.direction.seeds[0] or own.arm.spelling or own.estimator:
        return
    for number in range(1, study.direction.resamples + 1):
        yield replace(
            own,
            name=f"{own.name}.resample{number}",
            answered=study.direction.resample_completions,
            resample_of=own.name,
            resample=number,
        )


def _controls(study: Study, arms: tuple[Arm, ...]) -> Iterator[PlannedDirection]:
    """Control k of a kind is made for the direction of arm k. If there are more controls than arms, the arms are repeated.

    Arms with a small edit have none. Directions of further estimators have controls only where an edit needs some of their norm
    or as many as its subspace has.
    """
    arms, controlled = tuple(arm for arm in arms if not arm.spelling), _controlled(study)
    for kind, count in study.controls.counts.items():
        # Of a kind that depends on texts there may be few different ones, so that a subspace of them could lack dimensions.
        wanted = controlled[:1] if isinstance(control_kind(kind), TextControl) else controlled
        for number in range(count):
            name, arm = f"{control_kind(kind).name}-{number + 1}", arms[number % len(arms)]
            for layer, seed, each in product(study.direction.places, study.direction.seeds, wanted):
                beside = placed_name(study, arm_direction(study, arm), layer, seed, each.suffix)
                yield PlannedDirection(
                    placed_name(study, name, layer, seed, each.suffix),
                    name,
                    arm,
                    layer,
                    beside,
                    kind,
                    number // len(arms),
                    study.controls.answered(number),
                    seed,
                    estimator=each.estimator,
                    part=each.part,
                )


def _controlled(study: Study) -> list[_Found]:
    """The directions of one arm and layer for which controls are made, the first estimator's first."""
    wanted = {study.direction.estimator}
    for spec in study.interventions:
        # A subspace of several layers has as many random directions as layers, whichever estimator they are made for.
        if span_of(spec) in ("estimators", "parts") or doses_by_norm(spec):
            wanted |= {one.name for one in estimators_of(spec, study.direction)}
    return [one for one in _all_found(study) if (one.estimator or study.direction.estimator) in wanted]


def doses_by_norm(spec: InterventionSpec) -> bool:
    """Whether the dose depends on the direction's norm, so that a control needs the same norm."""
    return spec.unit == "raw" and spec.coefficient is not None


def arm_direction(study: Study, arm: Arm) -> str:
    """The name of an arm's direction, without its place."""
    single = not arm.spelling and sum(not is_edited(one) for one in study.checkpoints[arm.checkpoint].prompts) == 1
    # Names of directions are parts of file names, in which the mark of a small edit is not allowed.
    prompt = arm.prompt.replace(MARK, ".")
    return arm.checkpoint if single else f"{arm.checkpoint}.{prompt}"


def placed_name(study: Study, name: str, layer: int | None, seed: int | None, suffix: str) -> str:
    """A direction's name, with its seed and its layer where the study has several, and how it was found in between."""
    drawn = name if len(study.direction.seeds) == 1 else f"{name}.pairs{seed}"
    found = f"{drawn}{suffix}"
    return found if layer is None or len(study.direction.places) == 1 else f"{found}.layer{layer}"
