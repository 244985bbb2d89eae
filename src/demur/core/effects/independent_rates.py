"""The difference of two refusal rates on different instructions, whose verdicts cannot be paired.

The test is Fisher's exact one. The interval is the score interval of Miettinen and Nurminen (1985), "Comparative analysis of two
rates", Statistics in Medicine 4, with the closed form of Farrington and Manning (1990) for the rates under a supposed difference.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from demur.core.effects.grouped_differences import ENOUGH_FOR_T, GroupedChanges
from demur.core.effects.paired_change import DELTA, Method
from demur.core.errors import InputError
from demur.core.exact_numbers import root
from demur.core.statistics import fisher

FISHER, FISHER_AND_GROUPS = "Fisher's exact test", "Fisher's exact test and cluster t"

_NORMAL = NormalDist()


@dataclass(frozen=True)
class IndependentScores:
    """Two counts of refusals, and what they say of the difference of the two rates: second minus first.

    Attributes:
        first: refusals among the first instructions.
        n_first: the first instructions.
        second: refusals among the second instructions.
        n_second: the second instructions.
    """

    first: int
    n_first: int
    second: int
    n_second: int

    def z(self, difference: float) -> float:
        """How many standard errors the observed difference lies above a supposed one, whose error the rates under it give."""
        one, other = self.second / self.n_second, self.first / self.n_first
        above = one - other - difference
        likely = self._likely_rate(one, other, difference)
        less = min(max(likely - difference, 0.0), 1.0)
        total = self.n_first + self.n_second
        variance = (likely * (1 - likely) / self.n_second + less * (1 - less) / self.n_first) * total / (total - 1)
        if variance <= 1e-15:
            return 0.0 if abs(above) < 1e-12 else math.copysign(math.inf, above)
        return above / math.sqrt(variance)

    def _likely_rate(self, one: float, other: float, difference: float) -> float:
        """The most likely second rate if the difference is as supposed: a root of a cubic equation."""
        ratio = self.n_first / self.n_second
        a = 1 + ratio
        b = -(1 + ratio + one + ratio * other + difference * (ratio + 2))
        c = difference**2 + difference * (2 * one + ratio + 1) + one + ratio * other
        d = -one * difference * (1 + difference)
        v = b**3 / (27 * a**3) - b * c / (6 * a**2) + d / (2 * a)
        u = math.copysign(math.sqrt(max(b**2 / (9 * a**2) - c / (3 * a), 0.0)), v)
        turn = math.acos(min(max(v / u**3, -1.0), 1.0)) if u else math.pi / 2
        found = 2 * u * math.cos((math.pi + turn) / 3) - b / (3 * a)
        return min(max(found, 0.0, difference), 1.0, 1 + difference)

    def p_at_most(self, difference: float) -> float:
        """One-sided p value against "the difference is at most this"."""
        return _upper(self.z(difference))

    def p_at_least(self, difference: float) -> float:
        """One-sided p value against "the difference is at least this"."""
        return _upper(-self.z(difference))

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """All differences that the score test does not reject."""
        limit, observed = _NORMAL.inv_cdf((1 + confidence) / 2), self.second / self.n_second - self.first / self.n_first
        low = root(lambda difference: self.z(difference) - limit, -1.0, observed) if observed > -1 else -1.0
        high = root(lambda difference: self.z(difference) + limit, observed, 1.0) if observed < 1 else 1.0
        return low, high


@dataclass(frozen=True)
class GroupedRates:
    """The same with a t distribution and standard errors between groups of near-duplicates, on each side.

    Attributes:
        difference: the observed difference.
        error: its standard error between groups.
        groups: the number of groups on the side that has fewer.
    """

    difference: float
    error: float
    groups: int

    def p_at_most(self, difference: float) -> float:
        """One-sided p value against "the difference is at most this". 1 with too few groups to tell."""
        return self._tail(self.difference - difference)

    def p_at_least(self, difference: float) -> float:
        """One-sided p value against "the difference is at least this". 1 with too few groups to tell."""
        return self._tail(difference - self.difference)

    def _tail(self, distance: float) -> float:
        from scipy.special import stdtr

        if self.groups < ENOUGH_FOR_T:
            return 1.0
        if self.error == 0:
            return 0.0 if distance > 0 else 1.0
        return float(stdtr(self.groups - 1, -distance / self.error))

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """The difference plus and minus a quantile of t times its error; -1 to 1 with too few groups to tell."""
        from scipy.special import stdtrit

        if self.groups < ENOUGH_FOR_T:
            return -1.0, 1.0
        reach = float(stdtrit(self.groups - 1, (1 + confidence) / 2)) * self.error
        return max(-1.0, self.difference - reach), min(1.0, self.difference + reach)


@dataclass(frozen=True)
class IndependentDifference:
    """The difference of two rates on different instructions: second minus first. Rates and differences are fractions.

    Attributes:
        difference: the observed difference.
        n: the number of instructions on the side that has fewer.
        groups: the number of groups of near-duplicates on the side that has fewer; None if all instructions are independent.
        test: the name of the test.
        p_value: two-sided p value of "the rates are equal". With groups, the larger of Fisher's and that between groups.
        least_p: the p value if every second instruction and no first one were refused: the smallest that is possible.
        methods: the methods that an interval or a p value has to satisfy, all of them.
    """

    difference: float
    n: int
    groups: int | None
    test: str
    p_value: float
    least_p: float
    methods: tuple[Method, ...]

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """The interval of the difference, widened by the interval between groups where there are groups."""
        found = [method.interval(confidence) for method in self.methods]
        return min(low for low, _ in found), max(high for _, high in found)

    def p_no_effect(self, delta: float = DELTA) -> float:
        """The p value of "the difference is smaller than delta" by two one-sided tests; see `PairedChange.p_no_effect`."""
        return max(max(method.p_at_most(-delta), method.p_at_least(delta)) for method in self.methods)


def independent_difference(
    first: Sequence[bool], second: Sequence[bool], groups: tuple[Sequence[Hashable], Sequence[Hashable]] | None = None
) -> IndependentDifference:
    """Compares the verdicts on two sets of different instructions.

    Args:
        first: whether each instruction of the first set is refused.
        second: the same for the second set.
        groups: the group of each instruction of both sets; None if all are independent.

    Returns:
        The difference with its test. With groups, a difference must hold in two ways, as in `paired_change`: the p value is the
        larger one, and the interval contains both. With fewer than ten groups on a side, nothing is significant.

    Raises:
        InputError: if a set is empty, or if its groups are not as many as its verdicts.

    Example:
        >>> found = independent_difference([False] * 18 + [True] * 2, [True] * 12 + [False] * 8)
        >>> round(found.difference, 2), round(found.p_value, 4), [round(bound, 2) for bound in found.interval()]
        (0.5, 0.0022, [0.21, 0.71])
    """
    if not first or not second:
        raise InputError(f"a comparison of two rates needs verdicts on both sides, not {len(first)} and {len(second)}")
    if groups is not None and [len(each) for each in groups] != [len(first), len(second)]:
        raise InputError(f"{len(first)} and {len(second)} verdicts need as many groups, not {[len(each) for each in groups]}")
    n_first, n_second = len(first), len(second)
    scores = IndependentScores(sum(map(bool, first)), n_first, sum(map(bool, second)), n_second)
    difference = scores.second / n_second - scores.first / n_first
    p_value = fisher(scores.second, n_second, scores.first, n_first)
    least_p = fisher(n_second, n_second, 0, n_first)
    fewer = min(n_first, n_second)
    if groups is None or all(len(set(each)) == len(each) for each in groups):
        return IndependentDifference(difference, fewer, None, FISHER, p_value, least_p, (scores,))
    sides = [GroupedChanges.of([0.0] * len(its), its, each) for its, each in zip((first, second), groups, strict=True)]
    count = min(len(side.sums) for side in sides)
    error = math.hypot(*(side.standard_error for side in sides)) if count > 1 else math.inf
    between = GroupedRates(difference, error, count)
    p_between = min(1.0, 2 * min(between.p_at_most(0.0), between.p_at_least(0.0)))
    least_p = least_p if count >= ENOUGH_FOR_T else 1.0
    larger = max(p_value, p_between)
    return IndependentDifference(difference, fewer, count, FISHER_AND_GROUPS, larger, least_p, (scores, between))


def _upper(z: float) -> float:
    return 1 - _NORMAL.cdf(z) if math.isfinite(z) else float(z < 0)
