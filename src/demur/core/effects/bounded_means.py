"""The mean of bounded differences within instructions, with its interval: for sums of several verdicts on one instruction."""

import math
from collections.abc import Hashable, Sequence

from demur.core.effects.grouped_differences import GroupedChanges
from demur.core.errors import InputError
from demur.core.exact_numbers import normal_quantile


def mean_interval(values: Sequence[float], most: float, groups: Sequence[Hashable] | None = None) -> tuple[float, float]:
    """A 95 % interval of the mean of differences within instructions.

    Two instructions are added: one without a difference, and half of one each with the largest and the smallest difference. So
    the interval has a width even if all differences are the same. For two verdicts it is the interval of Agresti and Min (2005).
    If instructions come in groups, it also contains the interval between groups.

    Args:
        values: one difference for each instruction.
        most: the largest difference that is possible.
        groups: the group of each instruction; None if all are independent.

    Returns:
        The lower and the upper bound, between `-most` and `most`.

    Raises:
        InputError: if there is no value, or if the groups are not as many as the values.

    Example:
        >>> [round(bound, 2) for bound in mean_interval([0.5, 0.5, 0.5, 1.0, 0.0], most=1.0)]
        [-0.02, 0.74]
        >>> [round(bound, 2) for bound in mean_interval([0.5, 0.5, 0.5, 1.0, 0.0], most=1.0, groups=[0, 0, 0, 1, 2])]
        [-1.0, 1.0]
    """
    if not values or (groups is not None and len(groups) != len(values)):
        raise InputError(f"{len(values)} differences need at least one value and as many groups, if there are any")
    n = len(values) + 2
    mean = sum(values) / n
    variance = (sum(value * value for value in values) + most * most) / n - mean * mean
    reach = normal_quantile(0.95) * math.sqrt(variance / n)
    low, high = max(-most, mean - reach), min(most, mean + reach)
    if groups is None or len(set(groups)) == len(values):
        return low, high
    # Scaled to at most 1, because the methods between groups are written for differences of rates.
    scaled = GroupedChanges.of([0.0] * len(values), [value / most for value in values], groups)
    over_low, over_high = scaled.method.interval()
    return min(low, most * over_low), max(high, most * over_high)
