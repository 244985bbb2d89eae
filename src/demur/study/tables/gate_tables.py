"""The table `when` of an intervention: a gate, so that the edit acts only in rows whose prompt opens it.

`demur.interventions.gates.gate` says how a gate is decided.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from demur.core.errors import nearest
from demur.study.shorthand.arm_names import Arms, are_named, arm_names
from demur.study.spec_fields import ALL, SELECT, Decides, Label, Table
from demur.study.tables.estimator_tables import EstimatorSpec

Cosine = Annotated[float, Field(ge=-1, le=1)]


class GateSpec(Table):
    """The condition under which an edit acts: the cosine of the target's prompt with a direction of the study.

    The direction is the target's own unless `source` names an arm, and that of the study's first estimator and first training
    pairs. With neither `above` nor `below`, the run finds the threshold on the target's training instructions, so that the gate
    is open for harmful ones.
    """

    layer: Annotated[int | None, Decides(), Field(ge=0)] = None
    source: Annotated[str | None, Decides()] = None
    estimator: Annotated[str | None, Decides()] = None
    tokens: Annotated[Literal["all", "last"], Decides()] = "all"
    above: Annotated[Cosine | None, Decides()] = None
    below: Annotated[Cosine | None, Decides()] = None

    @model_validator(mode="after")
    def _one_threshold(self) -> "GateSpec":
        if self.above is not None and self.below is not None:
            raise ValueError("both above and below are given; give one of them, or none to find the threshold")
        return self

    @property
    def opens_for(self) -> Label:
        """The instructions for which the gate is meant to be open: directions point from harmless to harmful ones."""
        return "harmful" if self.below is None else "harmless"


def written_keys(value: JsonValue) -> JsonValue:
    """The keys that are not defaults: the form that a digest compares, so that a further key changes no digest."""
    if not isinstance(value, dict):
        return value
    defaults = {key: field.default for key, field in GateSpec.model_fields.items()}
    return {key: given for key, given in value.items() if key not in defaults or defaults[key] != given}


def gate_fault(spec: GateSpec, layers: Sequence[int] | str, estimators: Sequence[EstimatorSpec], arms: Arms) -> str:
    """What is wrong with a gate of a study, to be written after the number of its intervention; empty if nothing is.

    Args:
        spec: the gate.
        layers: the layers of the study's directions, or "select" or "all".
        estimators: its estimators.
        arms: its arms.
    """
    if spec.source is not None and spec.source not in arm_names(arms):
        return f".when.source names {spec.source!r}; {nearest(spec.source, arm_names(arms))}"
    known = {one.name: one.directions for one in estimators}
    if spec.estimator is not None and spec.estimator not in known:
        return f".when.estimator names {spec.estimator!r}; {nearest(spec.estimator, known)}"
    if spec.estimator is not None and known[spec.estimator] > 1:
        return f".when.estimator is {spec.estimator!r}, which gives several directions; name one that gives one"
    named = [f"{name}/{prompt}" for name, prompts in arms.items() for prompt in prompts if _is_source(spec, name, prompt)]
    if len(named) > 1:
        return f".when.source is {spec.source!r}, which has {len(named)} prompt formats; name one arm, such as {named[0]!r}"
    return _layer_fault(spec, layers)


def _is_source(spec: GateSpec, checkpoint: str, prompt: str) -> bool:
    return spec.source is not None and are_named([spec.source], checkpoint, prompt)


def _layer_fault(spec: GateSpec, layers: Sequence[int] | str) -> str:
    if layers == SELECT:
        return '.when.layer is given, but direction.layers is "select"; leave it out' if spec.layer is not None else ""
    if layers == ALL or (spec.layer is None and len(layers) > 1):
        return "" if spec.layer is not None else ".when has no layer, and the study has directions of several; give when.layer"
    if spec.layer is not None and spec.layer not in layers:
        return f".when.layer is {spec.layer}; the study has {', '.join(map(str, layers))}"
    return ""
