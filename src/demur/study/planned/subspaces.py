"""Which directions an intervention of a study uses: single ones, or subspaces of several."""

from collections.abc import Iterator, Sequence

from demur.interventions.edit_kind import Span, edit_kind
from demur.study.planned.direction_list import arm_direction, doses_by_norm, estimator_suffix, placed_name
from demur.study.planned.planned_directions import PlannedDirection, PlannedSubspace, Used
from demur.study.spec import InterventionSpec, Study
from demur.study.tables.direction_uses import estimators_of, layers_of, span_of
from demur.study.tables.estimator_tables import short_name


def used_by(study: Study, spec: InterventionSpec, directions: Sequence[PlannedDirection]) -> tuple[Used, ...]:
    """The directions that an intervention uses, or the subspaces that they make up, controls and resamples among them.

    Args:
        study: the study.
        spec: one of its interventions, of a kind that takes directions.
        directions: all directions of the study.
    """
    names, layers = [one.name for one in estimators_of(spec, study.direction)], set(layers_of(spec, study.direction))
    read = [one for one in directions if one.layer in layers]
    # Null directions of the first estimator are null directions for the others too, unless their norm or number matters.
    own_controls = doses_by_norm(spec) or span_of(spec) in ("estimators", "parts")
    mine = [one for one in read if (not one.estimator if one.control and not own_controls else _finder(study, one) in names)]
    if edit_kind(spec.kind).artefact == "subspace":
        return tuple(_subspaces(study, spec, [one for one in mine if one.resample_of is None], names))
    return tuple(mine)


def _finder(study: Study, one: PlannedDirection) -> str:
    return one.estimator or study.direction.estimator


def _subspaces(
    study: Study, spec: InterventionSpec, directions: Sequence[PlannedDirection], names: Sequence[str]
) -> Iterator[PlannedSubspace]:
    """The directions of one arm, or the controls of one name, put together as the intervention asks."""
    span = span_of(spec)
    assert span is not None, "the study has checked that it says which directions are put together"
    groups: dict[tuple[object, ...], list[PlannedDirection]] = {}
    for one in directions:
        own = {"estimators": (one.layer,), "parts": (one.layer, one.estimator), "layers": (one.estimator, one.part)}[span]
        groups.setdefault((one.source, one.arm.name, one.pairs_seed, *own), []).append(one)
    parts = {each.name: each.directions for each in study.direction.estimators}
    for members in groups.values():
        size = {
            "estimators": len(names),
            "parts": parts[_finder(study, members[0])],
            "layers": len(layers_of(spec, study.direction)),
        }[span]
        if len(members) == size:  # Kinds of controls that further estimators do not have make no subspace of several estimators.
            if span == "estimators":
                members.sort(key=lambda one: names.index(_finder(study, one)))
            members.sort(key=lambda one: (one.part, one.layer))
            yield _subspace(study, members, "+".join(names) if span == "estimators" else members[0].estimator, span)


def _subspace(study: Study, members: Sequence[PlannedDirection], estimator: str, span: Span) -> PlannedSubspace:
    one = members[0]
    suffix = {
        "estimators": "." + "+".join(map(short_name, estimator.split("+"))),
        "parts": f"{estimator_suffix(estimator)}.parts",
        "layers": f"{estimator_suffix(estimator)}.layers{_numbers([each.layer for each in members])}",
    }[span]
    layer = None if span == "layers" else one.layer
    of_arm = placed_name(study, arm_direction(study, one.arm), layer, one.pairs_seed, suffix)
    if not one.control:
        return PlannedSubspace(of_arm, tuple(members), None, estimator)
    return PlannedSubspace(placed_name(study, one.source, layer, one.pairs_seed, suffix), tuple(members), of_arm, estimator)


def _numbers(layers: Sequence[int]) -> str:
    """Layers as a part of a name: `1-4` if none is left out, else `1+3`."""
    whole = len(layers) > 2 and list(layers) == list(range(layers[0], layers[-1] + 1))
    return f"{layers[0]}-{layers[-1]}" if whole else "+".join(map(str, layers))
