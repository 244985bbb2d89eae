"""Finds and checks the parts that a study names (by name or `module:Class`), without importing anything heavy."""

from collections.abc import Callable, Iterable, Mapping

from pydantic import BaseModel, JsonValue, ValidationError

from demur.core.errors import InputError
from demur.core.registry import registry
from demur.interventions.edit_kind import edit_kind
from demur.study.spec_fields import Facts, unknown_key

LIGHT = ("judge", "measurement")
"""Kinds of parts whose modules import nothing heavy. Such a part is imported and checked when a study names it."""


def part_name(kind: str) -> Callable[[str], str]:
    """A validator for the name of a part of one kind.

    The part is imported and checked here, so that a wrong one is refused before the work begins. There is one exception: a
    registered part of a kind that is not in `LIGHT` is not imported yet, because its module may import torch.
    """

    def check(name: str) -> str:
        if kind in LIGHT or name not in registry(kind):
            registry(kind).get(name)
        return name

    return check


def check_edits_differ(names: Iterable[str]) -> None:
    """Check that no two kinds of edit have a word in common, because a run tells kinds apart by their words.

    Raises:
        ValueError: if two kinds share a word; the message names both kinds and the word.
    """
    taken: dict[str, str] = {}
    for name in dict.fromkeys(names):
        kind = edit_kind(name)
        own = dict.fromkeys((kind.name, *(word for words in kind.words for word in (words.kind, words.action))), name)
        for word in own:
            if word in taken:
                raise ValueError(f"the kinds of edit {taken[word]!r} and {name!r} both use the name {word!r}; use one of them")
        taken |= own


def own_names_differ(kind: str) -> Callable[[list[str]], list[str]]:
    """A validator for names of parts: two parts may not have the same `name` attribute, however the study names them."""

    def check(names: list[str]) -> list[str]:
        taken: dict[str, str] = {}
        for name in names:
            own = registry(kind).get(name).name
            if own in taken:
                raise ValueError(f"{taken[own]!r} and {name!r} both call themselves {own!r}; use one of them")
            taken[own] = name
        return names

    return check


def checked_settings(settings: type[BaseModel] | None, given: Mapping[str, object], taken: Iterable[str]) -> dict[str, JsonValue]:
    """The settings of a part, validated by its own model and with every default written out.

    Args:
        settings: the part's model, None if it has no settings.
        given: the keys of its table that are settings of the part.
        taken: the other keys of that table; the error for an unknown key lists them too.

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
