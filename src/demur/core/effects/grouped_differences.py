"""The difference of two paired rates where instructions come in groups, such as near-duplicates that are answered alike.

The verdicts of a group are not independent, so the groups are counted, not the instructions. There are two methods, by the number
of groups. Both give one-sided p values for a supposed difference, and an interval of the differences that they do not reject.
"""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

ENOUGH_FOR_T = 10
"""From this many groups on, the standard error between groups is good enough for a t test."""


@dataclass(frozen=True)
class GroupedChanges:
    """Changes of the outcomes from a first to a second condition, added up by group.

    Attributes:
        sums: the sum of the changes in each group; for verdicts, gained minus lost refusals.
        sizes: the number of instructions of each group.
    """

    sums: tuple[float, ...]
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, first: Sequence[float], second: Sequence[float], groups: Sequence[Hashable]) -> "GroupedChanges":
        """Adds up outcomes under two conditions by the group of each instruction. Verdicts count as 0 or 1."""
        sums: dict[Hashable, float] = defaultdict(int)
        sizes: dict[Hashable, int] = defaultdict(int)
        for before, after, group in zip(first, second, groups, strict=True):
            sums[group] += after - before
            sizes[group] += 1
        return cls(tuple(sums.values()), tuple(sizes.values()))

    @property
    def method(self) -> "ClusterT | SubsetMeans":
        """The method for as many groups: a t test from `ENOUGH_FOR_T` groups on, sign flips for fewer."""
        return ClusterT(self) if len(self.sums) >= ENOUGH_FOR_T else SubsetMeans(self)

    @property
    def difference(self) -> float:
        """The observed difference of the two means."""
        return sum(self.sums) / sum(self.sizes)

    @property
    def standard_error(self) -> float:
        """Cluster-robust standard error of the difference, with the factor G / (G - 1) for G groups (Liang and Zeger 1986)."""
        count, n = len(self.sums), sum(self.sizes)
        residuals = (total - self.difference * size for total, size in zip(self.sums, self.sizes, strict=True))
        return float((count / (count - 1) * sum(each * each for each in residuals)) ** 0.5) / n


@dataclass(frozen=True)
class ClusterT:
    """A t test with the standard error between groups and one degree of freedom less than groups. For `ENOUGH_FOR_T` or more."""

    changes: GroupedChanges

    def p_at_most(self, difference: float) -> float:
        """One-sided p value against "the difference is at most this"."""
        return self._tail(self.changes.difference - difference)

    def p_at_least(self, difference: float) -> float:
        """One-sided p value against "the difference is at least this"."""
        return self._tail(difference - self.changes.difference)

    def _tail(self, distance: float) -> float:
        from scipy.special import stdtr

        error = self.changes.standard_error
        if error == 0:
            return 0.0 if distance > 0 else 1.0
        return float(stdtr(len(self.changes.sums) - 1, -distance / error))

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """The observed difference plus and minus a quantile of t times the standard error, within -1 and 1."""
        from scipy.special import stdtrit

        reach = float(stdtrit(len(self.changes.sums) - 1, (1 + confidence) / 2)) * self.changes.standard_error
        return max(-1.0, self.changes.difference - reach), min(1.0, self.changes.difference + reach)


@dataclass(frozen=True)
class SubsetMeans:
    """For few groups: the sign of each group's deviation is turned in all ways (the wild cluster bootstrap, with every draw).

    If a supposed difference is right, each group deviates upwards as likely as downwards. So all 2^G patterns of signs are
    equally likely, and the p value is the share of patterns that deviate at least as far as the observed one. The differences
    that are not rejected lie between two of the means of all subsets of groups (Hartigan 1969, "Using subsample values as
    typical values"). Nothing can be significant with fewer than six groups, because 2 / 2^5 is above 0.05. A percentile
    bootstrap would claim more than so few groups can tell; the wild bootstrap is that of Cameron, Gelbach and Miller 2008.
    """

    changes: GroupedChanges

    @cached_property
    def _means(self) -> "NDArray[Any]":
        """The sorted means of all subsets of groups that are not empty."""
        import numpy as np

        count = len(self.changes.sums)
        chosen = (np.arange(1, 2**count)[:, None] >> np.arange(count)) & 1
        return np.sort((chosen @ np.array(self.changes.sums)) / (chosen @ np.array(self.changes.sizes)))

    def p_at_most(self, difference: float) -> float:
        """One-sided p value against "the difference is at most this"."""
        return float((1 + (self._means <= difference).sum()) / (len(self._means) + 1))

    def p_at_least(self, difference: float) -> float:
        """One-sided p value against "the difference is at least this"."""
        return float((1 + (self._means >= difference).sum()) / (len(self._means) + 1))

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """The differences that are not rejected, -1 to 1 if there are too few groups to reject any."""
        outside = int((1 - confidence) / 2 * (len(self._means) + 1) + 1e-9)
        return (-1.0, 1.0) if outside < 1 else (float(self._means[outside - 1]), float(self._means[-outside]))
