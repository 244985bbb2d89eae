"""The gates of a study's edits as records: in each target arm, with which direction its prompts are compared."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from pydantic import JsonValue

from demur.study.planned.planned_directions import Arm, PlannedDirection
from demur.study.shorthand.arm_names import are_named
from demur.study.spec import InterventionSpec, Study


@dataclass(frozen=True)
class PlannedGate:
    """The gate of an edit in one target arm.

    Attributes:
        direction: the condition direction.
        tokens: what of a prompt is compared with it: the mean over `all` tokens, or the `last` one.
        above: the cosine above which the gate is open; None if there is no such limit.
        below: the cosine below which it is open. With neither, the run finds the threshold on training instructions.
        written: the gate as the study names it, the layer written out and other defaults left out; the same in every target.
    """

    direction: PlannedDirection
    tokens: str
    above: float | None = None
    below: float | None = None
    written: Mapping[str, JsonValue] = field(default_factory=dict, compare=False)

    @cached_property
    def settings(self) -> str:
        """What decides it as JSON text. With the target arm, it identifies a stored gate."""
        facts = {"direction": self.direction.name, "tokens": self.tokens, "above": self.above, "below": self.below}
        return json.dumps(facts, sort_keys=True, separators=(",", ":"))

    @property
    def in_key(self) -> str:
        """What it adds to the key of a cell."""
        limits = [f"{name} {value!r}" for name, value in (("above", self.above), ("below", self.below)) if value is not None]
        return f", when {self.direction.name} {self.tokens} {limits[0] if limits else 'found'}"


def planned_gate(study: Study, spec: InterventionSpec, target: Arm, directions: Sequence[PlannedDirection]) -> PlannedGate | None:
    """The gate of an intervention in one target arm; None if it has none.

    Args:
        study: the study, which has checked that there is exactly one such direction.
        spec: the intervention.
        target: the arm that is edited.
        directions: all directions of the study.
    """
    when = spec.when
    if when is None:
        return None
    estimator = "" if when.estimator in (None, study.direction.estimator) else when.estimator
    layer = study.direction.places[0] if when.layer is None else when.layer
    wanted = (layer, estimator, study.direction.seeds[0])
    condition = next(
        one
        for one in directions
        if one.own and (one.layer, one.estimator, one.pairs_seed) == wanted and _is_source(when.source, one.arm, target)
    )
    written = {**when.model_dump(mode="json", exclude_none=True), "layer": layer}
    return PlannedGate(condition, when.tokens, when.above, when.below, written)


def _is_source(source: str | None, arm: Arm, target: Arm) -> bool:
    if source is None:
        return arm == target
    return not arm.spelling and are_named([source], arm.checkpoint, arm.prompt)
