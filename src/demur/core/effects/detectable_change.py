"""What a paired comparison could have shown at all: the least p value within its reach, and the least change it would detect."""

from collections.abc import Hashable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from demur.core.effects.grouped_differences import GroupedChanges
from demur.core.effects.paired_change import paired_change
from demur.core.statistics import LEVEL

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

POWER = 0.8
"""The usual chance with which a study should detect the change that it is made for."""

Sense = Literal[-1, 1]
"""The sign of the expected change."""


def least_attainable_p(first: Sequence[bool], sense: Sense, groups: Sequence[Hashable] | None = None) -> float:
    """The p value if every verdict changed in the expected sense. If it is not below the level, nothing could be shown.

    Args:
        first: whether each instruction is refused under the first condition.
        sense: 1 if the rate should rise, -1 if it should fall.
        groups: the group of each instruction; None if all are independent.

    Example:
        >>> round(least_attainable_p([True] * 5 + [False] * 95, -1), 4)
        0.0625
    """
    return paired_change(first, [sense > 0] * len(first), groups).p_value


def least_detectable_change(
    first: Sequence[bool], second: Sequence[bool], sense: Sense, groups: Sequence[Hashable] | None = None
) -> float | None:
    """The smallest true change that McNemar's test would find significant with a chance of `POWER`, with as many instructions.

    The change is added to the share of verdicts that change against the expected sense, which is taken as observed. With
    groups, the number of instructions is divided by the observed design effect: the variance between groups over the variance
    that independent instructions would have (Kish 1965).

    Args:
        first: whether each instruction is refused under the first condition.
        second: the same under the second condition, in the same order.
        sense: 1 if the rate should rise, -1 if it should fall.
        groups: the group of each instruction; None if all are independent.

    Returns:
        The size of the change, as a fraction above 0; None if no change that the first rate leaves room for has this chance.
    """
    n = len(first)
    gained = sum(b and not a for a, b in zip(first, second, strict=True))
    lost = sum(a and not b for a, b in zip(first, second, strict=True))
    against = (lost if sense > 0 else gained) / n
    room = sum(map(bool, first)) / n
    room = 1 - room if sense > 0 else room
    return _least_change(max(1, int(n / _design_effect(first, second, gained, lost, groups))), against, room)


def _design_effect(
    first: Sequence[bool], second: Sequence[bool], gained: int, lost: int, groups: Sequence[Hashable] | None
) -> float:
    n = len(first)
    independent = (gained + lost - (gained - lost) ** 2 / n) / n**2
    if groups is None or len(set(groups)) in (1, n) or independent <= 0:
        return 1.0
    return max(1.0, GroupedChanges.of(first, second, groups).standard_error ** 2 / independent)


@lru_cache(maxsize=1024)
def _least_change(n: int, against: float, room: float) -> float | None:
    most = min(room, 1 - against) - against
    if most <= 0 or power(n, against + most, against) < POWER:
        return None
    low, high = 0.0, most
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if power(n, against + middle, against) >= POWER else (middle, high)
    return high


def power(n: int, expected: float, against: float) -> float:
    """The chance that the exact McNemar test shows a change in the expected sense.

    Args:
        n: the number of instructions.
        expected: the share of verdicts that change in the expected sense.
        against: the share that change against it.

    Returns:
        The exact chance, summed over all numbers of verdicts that may change.

    Example:
        >>> round(power(100, 0.10, 0.0), 3)
        0.942
    """
    import numpy as np
    from scipy.special import bdtrc

    differing = expected + against
    if differing <= 0:
        return 0.0
    shares, needed = _chances(n, min(differing, 1.0)), _needed(n)
    counts = np.arange(n + 1)
    shown = counts >= needed
    return float((shares[shown] * bdtrc(needed[shown] - 1, counts[shown], expected / differing)).sum())


def _chances(n: int, share: float) -> "NDArray[numpy.float64]":
    """The binomial chance of each number from 0 to n."""
    import numpy as np
    from scipy.special import gammaln, xlog1py, xlogy

    counts = np.arange(n + 1)
    ways = gammaln(n + 1) - gammaln(counts + 1) - gammaln(n - counts + 1)
    found: NDArray[numpy.float64] = np.exp(ways + xlogy(counts, share) + xlog1py(n - counts, -share))
    return found


@lru_cache(maxsize=64)
def _needed(n: int) -> "NDArray[numpy.int64]":
    """For each number of verdicts that change, how many must change in the expected sense so that the test is significant."""
    import numpy as np
    from scipy.special import bdtrc

    counts = np.arange(n + 1)
    # Begins below the answer for every count and goes up, at most about a dozen steps.
    found = np.maximum(0, np.floor(counts / 2 + np.sqrt(counts) - 4)).astype(int)
    while (short := (found <= counts) & (bdtrc(found - 1, counts, 0.5) > LEVEL / 2)).any():
        found = found + short
    return found
