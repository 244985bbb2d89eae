"""Which of a study's directions an intervention uses: by estimator, by layer, and several together for some kinds of edit."""

from collections.abc import Sequence

from demur.core.errors import nearest
from demur.interventions.edit_kind import Span, SpansOne, edit_kind
from demur.study.shorthand.arm_names import Arms
from demur.study.spec_fields import ALL, SELECT
from demur.study.spec_tables import DirectionSpec, InterventionSpec
from demur.study.tables.estimator_tables import EstimatorSpec
from demur.study.tables.gate_tables import gate_fault


def span_of(spec: InterventionSpec) -> Span | None:
    """Which directions an intervention puts together; None if it uses single ones, or if the study does not say."""
    kind = edit_kind(spec.kind)
    return kind.span if isinstance(kind, SpansOne) else spec.span


def estimators_of(spec: InterventionSpec, direction: DirectionSpec) -> tuple[EstimatorSpec, ...]:
    """The estimators whose directions an intervention uses, in the order in which it names them.

    Without names these are all that fit: those that give several directions for the span `parts`, else those that give one.
    """
    if spec.estimators is not None:
        by_name = {one.name: one for one in direction.estimators}
        return tuple(by_name[name] for name in spec.estimators)
    parts = span_of(spec) == "parts"
    return tuple(one for one in direction.estimators if (one.directions > 1) == parts)


def layers_of(spec: InterventionSpec, direction: DirectionSpec) -> list[int]:
    """The layers whose directions an intervention uses."""
    return direction.places if spec.read_at is None else [layer for layer in direction.places if layer in spec.read_at]


def check_uses(interventions: Sequence[InterventionSpec], direction: DirectionSpec, arms: Arms) -> None:
    """Check that interventions name estimators and layers of the study, and that they have the directions that they take.

    Their gates are checked too.

    Raises:
        ValueError: for the first that does not.
    """
    for number, spec in enumerate(interventions):
        gate = "" if spec.when is None else gate_fault(spec.when, direction.layers, direction.estimators, arms)
        fault = _unknown(spec, direction) or _fault(spec, direction) or gate
        if fault:
            raise ValueError(f"interventions.{number}{fault}")


def _unknown(spec: InterventionSpec, direction: DirectionSpec) -> str:
    names = [one.name for one in direction.estimators]
    for name in spec.estimators or ():
        if name not in names:
            return f".estimators names {name!r}; {nearest(name, names)}"
    if spec.read_at is None or direction.layers == ALL:
        return ""
    if direction.layers == SELECT:
        return '.read_at names layers, but direction.layers is "select"; leave read_at out'
    known = ", ".join(map(str, direction.places))
    return next((f".read_at names layer {one}; the study has {known}" for one in spec.read_at if one not in direction.places), "")


def _fault(spec: InterventionSpec, direction: DirectionSpec) -> str:
    """What is wrong with the directions of one intervention, to be written after its number; empty if nothing is."""
    kind, span = edit_kind(spec.kind), span_of(spec)
    if kind.artefact == "none" and (spec.estimators is not None or spec.read_at is not None):
        return f": the kind {spec.kind!r} takes no direction; leave estimators and read_at out"
    if kind.artefact != "subspace":
        return f": the kind {spec.kind!r} takes no span; leave it out" if spec.span is not None else ""
    if span is None:
        return f': the kind {spec.kind!r} takes several directions; give span = "estimators", "layers" or "parts"'
    if spec.span is not None and spec.span != span:
        return f': the kind {spec.kind!r} always has span = "{span}"; leave span out'
    if kind.takes_dose and spec.unit == "residual":
        return f": the kind {spec.kind!r} takes several directions, which have no residual norm in common; use another unit"
    used = estimators_of(spec, direction)
    several = [one.name for one in used if one.directions > 1]
    if span == "parts":
        if not used or len(several) < len(used):
            return ': span = "parts" needs an estimator that gives several directions, such as {name = "k-means", directions = 3}'
        return ""
    if several:
        return f': span = "{span}" takes estimators of one direction, and {several[0]!r} gives several; leave it out'
    if span == "estimators" and len(used) < 2:
        return ': span = "estimators" needs two or more estimators of one direction; the study has one'
    if span == "layers" and (direction.layers == SELECT or _fewer_than_two(spec, direction)):
        return ': span = "layers" needs directions of two or more layers; give direction.layers a list or "all"'
    return ""


def _fewer_than_two(spec: InterventionSpec, direction: DirectionSpec) -> bool:
    if direction.layers == ALL:
        return spec.read_at is not None and len(spec.read_at) < 2
    return len(layers_of(spec, direction)) < 2
