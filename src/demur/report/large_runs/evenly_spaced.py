"""Which of many checkpoints a figure shows: twelve lines can be told apart, and forty cannot."""

from collections.abc import Sequence
from typing import TypeVar

MOST_SHOWN = 12
"""The most lines or rows of one figure. Of more, these many are shown, evenly spaced; the data files have all."""

Item = TypeVar("Item")


def evenly_spaced(items: Sequence[Item], most: int = MOST_SHOWN) -> list[Item]:
    """At most so many items, the first and the last among them, with about equal steps between.

    Args:
        items: the items in order.
        most: the largest number to keep, at least 2.

    Returns:
        The items that are kept.

    Example:
        >>> evenly_spaced(range(40), 5)
        [0, 10, 20, 29, 39]
    """
    if len(items) <= most:
        return list(items)
    return [items[round(place * (len(items) - 1) / (most - 1))] for place in range(most)]


def spacing_note(count: int, what: str = "arms") -> str:
    """The sentence of a caption that says that not all are shown; empty if all are."""
    return "" if count <= MOST_SHOWN else f" Shown are {MOST_SHOWN} of {count} {what}, evenly spaced; the data file has all."


def axis_ticks(places: Sequence[float], names: Sequence[str]) -> list[tuple[float, str]]:
    """The places that are written on an axis, each with its text: its name, or its number if there are no names.

    Args:
        places: the places on the axis.
        names: a name for each of them; empty for none. Of many names only some are written.
    """
    return evenly_spaced(list(zip(places, names, strict=True))) if names else [(place, f"{place:g}") for place in places]
