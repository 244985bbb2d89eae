"""Turns pydantic's errors about a study into one sentence that names the key."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from pydantic import BaseModel, ValidationError

from demur.core.errors import nearest

Place = tuple[str, ...]
"""The place of a table in a study; `*` is any name, label or number."""

A_TEXT, A_TABLE = "as a text", "as a table"
"""Tags of values that may be a text or a table. pydantic puts them into the place of an error."""

UNKNOWN = ("extra_forbidden", "unknown_key")


def sentence(error: ValidationError, tables: Mapping[Place, type[BaseModel]]) -> str:
    """One sentence about the first error. Unknown keys come first, because a misspelt key is often why another is missing.

    Args:
        error: what pydantic found.
        tables: the model of each table of a study by its place; the nearest known key is taken from it.
    """
    found = sorted(error.errors(), key=lambda one: one["type"] not in UNKNOWN)[0]
    place = tuple(str(part) for part in found["loc"] if part not in (A_TEXT, A_TABLE))
    kind, dotted = found["type"], ".".join(place)
    if kind == "unknown_key":
        key = found["ctx"]["key"]
        return f"{'.'.join((*place, key))!r} is not a key of a study; {_hint(key, place, found['ctx']['known'], tables)}"
    if kind == "extra_forbidden":
        # Every second part of a place is a checkpoint's name, a label or a number.
        model = tables.get(tuple("*" if step % 2 else part for step, part in enumerate(place[:-1])), tables[()])
        return f"{dotted!r} is not a key of a study; {_hint(place[-1], place[:-1], model.model_fields, tables)}"
    if kind == "missing":
        return f"{dotted!r} is missing"
    if kind == "value_error":
        return str(found["ctx"]["error"]) if not dotted else f"{dotted}: {found['ctx']['error']}"
    return f"{dotted!r} is {found['input']!r}: {found['msg'][0].lower()}{found['msg'][1:]}"


def _hint(key: str, place: Place, known: Iterable[str], tables: Mapping[Place, type[BaseModel]]) -> str:
    """The last part of the error for an unknown key: a similar key of its table, the same key of another one, or all keys.

    A key of another table comes first if its name is the very same, because `seed` is nearer to `controls.seed` than to `site`.
    """
    known = list(known)
    close = get_close_matches(key, known, n=1, cutoff=_ALIKE)
    for wanted in [] if close else [key, *get_close_matches(key, _all_keys(tables), n=1, cutoff=_ALIKE)]:
        # Tables with one place only; the others have a name or a number of their own in it.
        for table, model in tables.items():
            if wanted in model.model_fields and table != place and "*" not in table:
                return f"did you mean {'.'.join((*table, wanted))!r}?"
        for table, model in tables.items():
            if wanted in model.model_fields and len(table) == 2 and table[:1] != place[:1]:
                return f"did you mean {'.'.join((table[0], _SUCH_AS[table[0]], wanted))!r}?"
    return nearest(key, known)


_ALIKE = 0.75
"""Keys at least this similar are one key misspelt."""

_SUCH_AS = {
    "checkpoints": "NAME",
    "prompts": "NAME",
    "instructions": "harmful",
    "interventions": "0",
    "measurements": "0",
    "published": "0",
}
"""What stands for the name, the label or the number in a key of a hint."""


def _all_keys(tables: Mapping[Place, type[BaseModel]]) -> list[str]:
    """The keys that a hint can name; a table within one of many, such as the gate of an intervention, has no short name."""
    return list(dict.fromkeys(name for table, model in tables.items() if len(table) <= 2 for name in model.model_fields))
