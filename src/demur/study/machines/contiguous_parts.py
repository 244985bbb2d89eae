"""Cuts a sequence into parts that follow each other and have about the same total weight."""

from collections.abc import Sequence
from itertools import pairwise


def contiguous_parts(weights: Sequence[int], count: int) -> list[range]:
    """Cut a sequence into at most `count` parts of about the same total weight.

    Args:
        weights: the weight of each item, in order.
        count: how many parts there are at most.

    Returns:
        The indices of each part, in order. No part is empty, so there are fewer parts than `count` if there are fewer items.

    Example:
        >>> contiguous_parts([1, 1, 1, 1, 4], 2)
        [range(0, 4), range(4, 5)]
    """
    most, whole, done = min(count, len(weights)), sum(weights), 0
    ends: list[int] = []
    places: list[int] = []
    for weight in weights:
        # Items without weight at the end belong to the last part.
        places.append(min(done * most // whole, most - 1) if whole else 0)
        done += weight
    for index in range(1, len(places)):
        if places[index] != places[index - 1]:
            ends.append(index)
    edges = [0, *ends, len(weights)]
    return [range(start, end) for start, end in pairwise(edges) if start < end]
