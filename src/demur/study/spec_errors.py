"""Turns pydantic's errors about a study into one sentence that names the key."""

from collections.abc import Mapping

from pydantic import BaseModel, ValidationError

from demur.core.errors import nearest

Place = tuple[str, ...]
"""The place of a table in a study; `*` is any name, label or number."""

UNKNOWN = ("extra_forbidden", "unknown_key")


def sentence(error: ValidationError, tables: Mapping[Place, type[BaseModel]]) -> str:
    """One sentence about the first error. Unknown keys come first, because a misspelt key is often why another is missing.

    Args:
        error: what pydantic found.
        tables: the model of each table of a study by its place; the nearest known key is taken from it.
    """
    found = sorted(error.errors(), key=lambda one: one["type"] not in UNKNOWN)[0]
    place = tuple(str(part) for part in found["loc"])
    kind, dotted = found["type"], ".".join(place)
    if kind == "unknown_key":
        key = found["ctx"]["key"]
        return f"{'.'.join((*place, key))!r} is not a key of a study; {nearest(key, found['ctx']['known'])}"
    if kind == "extra_forbidden":
        # Every second part of a place is a checkpoint's name, a label or a number.
        model = tables.get(tuple("*" if step % 2 else part for step, part in enumerate(place[:-1])), tables[()])
        return f"{dotted!r} is not a key of a study; {nearest(place[-1], model.model_fields)}"
    if kind == "missing":
        return f"{dotted!r} is missing"
    if kind == "value_error":
        return str(found["ctx"]["error"]) if not dotted else f"{dotted}: {found['ctx']['error']}"
    return f"{dotted!r} is {found['input']!r}: {found['msg'][0].lower()}{found['msg'][1:]}"
