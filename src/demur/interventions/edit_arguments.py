"""Checks of the arguments of an edit: layers, sites, positions, the kind's settings, and what the direction's file has to say."""

from collections.abc import Sequence
from typing import Literal, cast, get_args

from pydantic import BaseModel, JsonValue, ValidationError

from demur.core.errors import InputError, nearest
from demur.directions.direction import Direction
from demur.directions.subspace import Subspace
from demur.interventions.edit_kind import EditKind
from demur.models.layouts import SITES, Site

Unit = Literal["unit", "raw", "residual"]
Positions = Literal["all", "prompt", "generated"]


def check_artefact(kind: EditKind, given: Direction | Subspace | None) -> None:
    """Raises `InputError` if a kind of edit takes something else than it was given: a direction, a subspace or nothing."""
    found = "none" if given is None else "subspace" if isinstance(given, Subspace) else "direction"
    if found == kind.artefact:
        return
    takes = "no direction" if kind.artefact == "none" else f"a {kind.artefact}"
    way_out = "leave it out" if kind.artefact == "none" else "give one"
    if given is not None and kind.artefact == "subspace":
        way_out = "make one with demur.subspace([...])"
    elif given is not None and kind.artefact == "direction":
        way_out = "give one of its directions"
    raise InputError(f"an edit of kind {kind.name!r} takes {takes}; {way_out}")


def check_known(kind: EditKind, direction: Direction, unit: str, layers: Sequence[int] | None) -> None:
    """Raises `InputError` if the edit needs a fact that is missing in the direction's file."""
    if unit == "raw" and not direction.says("raw norm"):
        raise InputError(
            f"direction {direction.name!r} comes from a file that does not say its raw norm, so the unit 'raw' has no length; "
            "use unit 'unit' or 'residual'"
        )
    if kind.own_layer and layers is None and not direction.says("layer"):
        raise InputError(
            f"direction {direction.name!r} comes from a file that does not say its layer; say where to {kind.words[0].action} "
            "it, with layers=[...] in Python or --layer on the command line, or store the layer with demur convert --layer"
        )


def checked_settings(name: str, kind: EditKind, given: dict[str, JsonValue]) -> BaseModel | None:
    """The settings of an edit, as its kind's own model. Raises `InputError` for a key or value that it does not have."""
    if kind.settings is None:
        if given:
            raise InputError(f"an edit of kind {name!r} has no setting {next(iter(given))!r}; leave it out")
        return None
    for key in given:
        if key not in kind.settings.model_fields:
            raise InputError(f"an edit of kind {name!r} has no setting {key!r}; {nearest(key, kind.settings.model_fields)}")
    try:
        return kind.settings.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the settings"
        raise InputError(f"{where} of an edit of kind {name!r}: {first['msg']}") from error


def checked_layers(layers: Sequence[int] | None) -> tuple[int, ...] | None:
    """The layers of an edit. Raises `InputError` for no layer, and for a layer that is named twice."""
    if layers is None:
        return None
    if not layers:
        raise InputError("an edit at no layer does nothing; name a layer, or leave layers out")
    if len(set(layers)) < len(layers):
        raise InputError(f"the layers {', '.join(map(str, layers))} contain one layer twice; name each layer once")
    return tuple(layers)


def checked_sites(sites: Sequence[Site | str] | None) -> tuple[Site, ...] | None:
    """The sites of an edit. Raises `InputError` for an unknown site, and for a site that is named twice."""
    if sites is None:
        return None
    if len(set(sites)) < len(sites):
        raise InputError(f"the sites {', '.join(sites)} contain one site twice; name each site once")
    for site in sites:
        if site not in SITES:
            raise InputError(f"{site!r} is not a site of the residual stream; {nearest(site, SITES)}")
    return tuple(cast(Site, site) for site in sites)


def checked_positions(positions: Positions | str) -> Positions:
    """The positions of an edit. Raises `InputError` for an unknown choice."""
    if positions not in get_args(Positions):
        raise InputError(f"{positions!r} is not a choice of positions; {nearest(positions, get_args(Positions))}")
    return cast(Positions, positions)
