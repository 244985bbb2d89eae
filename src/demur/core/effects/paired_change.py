"""The change of a refusal rate between two conditions on the same instructions: its size, its interval and its tests."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

from demur.core.effects.grouped_differences import ClusterT, GroupedChanges
from demur.core.effects.paired_scores import PairedScores
from demur.core.errors import InputError
from demur.core.statistics import mcnemar

DELTA = 0.10
"""A change of less than this fraction counts as no effect, unless a caller gives another margin."""

MCNEMAR, CLUSTER_T, SIGN_FLIPS = "exact McNemar", "exact McNemar and cluster t", "exact McNemar and sign flips of groups"


class Method(Protocol):
    """A way to reason from verdicts to the difference of two rates."""

    def p_at_most(self, difference: float) -> float:
        """One-sided p value against "the difference is at most this"."""
        ...

    def p_at_least(self, difference: float) -> float:
        """One-sided p value against "the difference is at least this"."""
        ...

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """The differences that are not rejected."""
        ...


@dataclass(frozen=True)
class PairedChange:
    """The change from a first to a second condition on the same instructions. Rates and changes are fractions.

    Attributes:
        n: the number of instructions.
        before: how many are refused under the first condition.
        gained: how many are refused under the second condition only.
        lost: how many are refused under the first condition only.
        groups: the number of groups of instructions, None if each instruction is a group of its own.
        test: the name of the test.
        p_value: two-sided p value of "the rate does not change". With groups, the larger of McNemar's and that between groups.
        methods: the methods that an interval or a p value has to satisfy, all of them.
    """

    n: int
    before: int
    gained: int
    lost: int
    groups: int | None
    test: str
    p_value: float
    methods: tuple[Method, ...]

    @property
    def difference(self) -> float:
        """The change of the rate."""
        return (self.gained - self.lost) / self.n

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """The interval of the change: Tango's, widened by the interval between groups where there are groups.

        Args:
            confidence: the intended coverage.

        Returns:
            Two fractions between -1 and 1.
        """
        found = [method.interval(confidence) for method in self.methods]
        return min(low for low, _ in found), max(high for _, high in found)

    def p_no_effect(self, delta: float = DELTA) -> float:
        """The p value of "the change is not larger than delta in either direction": two one-sided tests (Schuirmann 1987).

        Args:
            delta: the margin of equivalence, as a fraction.

        Returns:
            The larger p value of the tests against "at most -delta" and "at least delta". If it is small, the change lies
            within the margin.
        """
        return max(max(method.p_at_most(-delta), method.p_at_least(delta)) for method in self.methods)


def paired_change(first: Sequence[bool], second: Sequence[bool], groups: Sequence[Hashable] | None = None) -> PairedChange:
    """Compares verdicts under two conditions on the same instructions.

    If every instruction is a group of its own, the test is McNemar's and the interval Tango's. Otherwise a change also has to
    hold between groups: by a t test for ten groups or more, and by sign flips for fewer. The p value is the larger of the two,
    and the interval contains both. So groups never make a result look surer.

    Args:
        first: whether each instruction is refused under the first condition.
        second: the same under the second condition, in the same order.
        groups: the group of each instruction; None if all are independent.

    Returns:
        The change with its test.

    Raises:
        InputError: if the lists are empty or differ in length.

    Example:
        >>> change = paired_change([True] * 8 + [False] * 2, [False] * 8 + [False] * 2)
        >>> change.difference, round(change.p_value, 4), [round(bound, 2) for bound in change.interval()]
        (-0.8, 0.0078, [-0.94, -0.3])
        >>> paired_change([True] * 8 + [False] * 2, [False] * 10, groups=[1] * 8 + [2] * 2).p_value
        1.0
    """
    paired = mcnemar(first, second)
    scores = PairedScores(paired.gained, paired.lost, paired.n)
    facts = (paired.n, sum(map(bool, first)), paired.gained, paired.lost)
    if groups is None or len(set(groups)) == paired.n:
        return PairedChange(*facts, None, MCNEMAR, paired.p_value, (scores,))
    if len(groups) != paired.n:
        raise InputError(f"each of {paired.n} instructions needs a group, but {len(groups)} groups were given")
    between = GroupedChanges.of(first, second, groups).method
    p_between = min(1.0, 2 * min(between.p_at_most(0.0), between.p_at_least(0.0)))
    test = CLUSTER_T if isinstance(between, ClusterT) else SIGN_FLIPS
    return PairedChange(*facts, len(set(groups)), test, max(paired.p_value, p_between), (scores, between))
