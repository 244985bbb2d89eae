"""The change of a mean between two conditions on the same instructions, with its interval: for losses and other numbers."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from demur.core.effects.grouped_differences import GroupedChanges
from demur.core.errors import InputError


@dataclass(frozen=True)
class MeanChange:
    """A change of a mean.

    Attributes:
        n: the number of pairs.
        change: the mean of second minus first.
        ci95: its 95 % interval; None for fewer than two groups of instructions.
    """

    n: int
    change: float
    ci95: tuple[float, float] | None


def mean_change(first: Sequence[float], second: Sequence[float], groups: Sequence[Hashable] | None = None) -> MeanChange:
    """Compares numbers under two conditions on the same instructions: a t interval with the standard error between groups.

    Args:
        first: one number for each instruction under the first condition.
        second: the same under the second condition, in the same order.
        groups: the group of each instruction; None if all are independent.

    Returns:
        The change with its interval.

    Raises:
        InputError: if the lists are empty or differ in length.

    Example:
        >>> found = mean_change([1.0, 2.0, 3.0], [2.0, 2.0, 5.0])
        >>> found.change, [round(bound, 2) for bound in found.ci95]
        (1.0, [-1.48, 3.48])
    """
    if not first or len(first) != len(second) or (groups is not None and len(groups) != len(first)):
        raise InputError(f"a change needs as many numbers under both conditions, not {len(first)} and {len(second)}")
    changes = GroupedChanges.of(first, second, range(len(first)) if groups is None else groups)
    if len(changes.sums) < 2:
        return MeanChange(len(first), changes.difference, None)
    from scipy.special import stdtrit

    reach = float(stdtrit(len(changes.sums) - 1, 0.975)) * changes.standard_error
    return MeanChange(len(first), changes.difference, (changes.difference - reach, changes.difference + reach))
