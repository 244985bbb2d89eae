"""Nested tables as one flat table, with a dotted key for each value."""

from collections.abc import Iterator, Mapping

from pydantic import JsonValue


def flatten(table: Mapping[str, JsonValue], *, index: str | None = None, keep_empty: bool = False) -> dict[str, JsonValue]:
    """A nested table as one flat table, in the same order.

    Args:
        table: the nested table.
        index: how the position of a table in a list is written after the list's key: ".{}" as in `--set`, or "[{}]". None keeps
            every list as one value. A list that holds no table is always one value.
        keep_empty: whether an empty inner table is kept as a value. If not, it is left out.

    Returns:
        The values by key. The keys of nested tables are joined by dots.

    Example:
        >>> study = {"direction": {"layers": [13]}, "edits": [{"kind": "add"}]}
        >>> flatten(study)
        {'direction.layers': [13], 'edits': [{'kind': 'add'}]}
        >>> flatten(study, index="[{}]")
        {'direction.layers': [13], 'edits[0].kind': 'add'}
    """
    return {key: value for name, inner in table.items() for key, value in _values(inner, str(name), index, keep_empty)}


def _values(value: JsonValue, key: str, index: str | None, keep_empty: bool) -> Iterator[tuple[str, JsonValue]]:
    if isinstance(value, Mapping) and (value or not keep_empty):
        for name, inner in value.items():
            yield from _values(inner, f"{key}.{name}", index, keep_empty)
    elif index is not None and isinstance(value, list) and any(isinstance(inner, Mapping) for inner in value):
        for number, inner in enumerate(value):
            yield from _values(inner, f"{key}{index.format(number)}", index, keep_empty)
    else:
        yield key, value
