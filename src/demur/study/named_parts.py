"""Finds and checks the parts that a study names (by name or `module:Class`), without importing anything heavy."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import BaseModel, JsonValue, ValidationError

from demur.core.errors import InputError
from demur.core.registry import check_members, registry
from demur.directions.controls.control import Control
from demur.interventions.edit_kind import EditKind
from demur.measurements.measurement import Measurement
from demur.study.spec_fields import Facts, unknown_key


def part_name(kind: str) -> Callable[[str], str]:
    """A validator for the name of a part of one kind.

    A registered name is not imported here, because some parts need torch. `module:Class` is imported, so that a misspelt one is
    refused before the work begins.
    """

    def check(name: str) -> str:
        if name not in registry(kind):
            registry(kind).get(name)
        return name

    return check


def named_edit(name: str) -> EditKind:
    """The kind of edit with this name, or at `module:Class`.

    Raises:
        InputError: for an unknown name, with the nearest known one, and for a part that lacks what a kind of edit needs.
    """
    found: EditKind = _complete(name, "edit", EditKind)
    if found.artefact == "subspace":
        raise InputError(f"the kind of edit {name!r} needs a subspace, but a study extracts only directions; use demur.generate")
    return found


def named_control(name: str) -> Control:
    """The kind of control of a name or `module:Class`.

    Raises:
        InputError: for an unknown name, with the nearest known one, and for a part that lacks what a kind of control needs.
    """
    found: Control = _complete(name, "control", Control)
    if not is_short_name(found.name):
        raise InputError(f"the control {name!r} calls itself {found.name!r}; expected letters, digits, - and _, for file names")
    return found


def named_measurement(name: str) -> Measurement:
    """The measurement of a name or `module:Class`.

    Raises:
        InputError: for an unknown name, with the nearest known one, and for a part that lacks what a measurement needs.
    """
    found: Measurement = _complete(name, "measurement", Measurement)
    return found


def is_short_name(name: str) -> bool:
    """Whether a name can be a part of file names: letters, digits, `-` and `_`."""
    return name.replace("-", "").replace("_", "").isalnum()


def _complete(name: str, kind: str, protocol: type) -> Any:
    """A part that has everything that its protocol asks for."""
    part = registry(kind).get(name)
    check_members(part, kind, name, protocol)
    return part


def checked_settings(settings: type[BaseModel] | None, given: Mapping[str, object], taken: Iterable[str]) -> dict[str, JsonValue]:
    """The settings of a part, validated by its own model and with every default written out.

    Args:
        settings: the part's model, None if it has no settings.
        given: the keys of its table that are not the study's own.
        taken: the study's own keys of that table, which an error lists too.

    Returns:
        The settings as plain data.

    Raises:
        PydanticCustomError: for a key that the part does not have.
        ValueError: for a value that the part's model refuses.
    """
    known = {} if settings is None else settings.model_fields
    for key in given:
        if key not in known:
            raise unknown_key(key, [*known, *taken])
    if settings is None:
        return {}
    try:
        return settings.model_validate(given).model_dump(mode="json")
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{place!r} is {first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}") from error


def changed_settings(settings: type[BaseModel] | None, written: Facts) -> dict[str, JsonValue]:
    """Those settings that differ from the part's defaults."""
    if settings is None:
        return dict(written)
    try:
        defaults = settings().model_dump(mode="json")
    except ValidationError as error:
        raise InputError(f"{settings.__name__} has a key without a default; every setting of a part needs one") from error
    return {key: value for key, value in written.items() if key not in defaults or defaults[key] != value}
