"""The tests and intervals of docs/statistics.md, written a second time from the formulas: `recompute_claims.py` uses them.

Nothing here is shared with demur. Where demur has a closed form, this has a search.
"""

from collections.abc import Callable, Hashable, Sequence
from functools import cache
from itertools import combinations
from math import exp, inf, log, sqrt
from typing import NamedTuple

from scipy.optimize import brentq
from scipy.stats import binom, binomtest, hypergeom, norm, t

LEVEL, DELTA, EDGE = 0.05, 0.1, 1e-9
Z = float(norm.ppf(0.975))
Groups = Sequence[Hashable] | None


class Method(NamedTuple):
    """One-sided p values of "the difference is at most / at least this", and the interval of the differences not rejected."""

    at_most: Callable[[float], float]
    at_least: Callable[[float], float]
    interval: tuple[float, float]


class Change(NamedTuple):
    """The difference of two rates: its size, its two-sided p value, its interval, and the p value of "smaller than delta"."""

    size: float
    p: float
    interval: tuple[float, float]
    p_no_effect: float


def scored(z: Callable[[float], float], observed: float) -> Method:
    """A method from a statistic that falls as the supposed difference grows."""
    low = brentq(lambda d: z(d) - Z, -1 + EDGE, observed, xtol=1e-14) if observed > -1 + EDGE and z(-1 + EDGE) > Z else -1.0
    high = brentq(lambda d: z(d) + Z, observed, 1 - EDGE, xtol=1e-14) if observed < 1 - EDGE and z(1 - EDGE) < -Z else 1.0
    return Method(lambda d: float(norm.sf(z(d))), lambda d: float(norm.cdf(z(d))), (float(low), float(high)))


def tango(gained: int, lost: int, n: int) -> Method:
    """Tango 1998. The most likely share of lost pairs is found by a search for the maximum of the likelihood."""

    rest = n - gained - lost

    def z(d: float) -> float:
        # The share of lost pairs lies between max(0, -d) and (1 - d) / 2; `part` is how far it lies between these.
        width = (1 - abs(d)) / 2

        def slope(part: float) -> float:
            more, less = max(d, 0.0) + part * width, max(-d, 0.0) + part * width
            return (gained / more if gained else 0.0) + (lost / less if lost else 0.0) - rest / ((1 - part) * width)

        low, high = 1e-15, 1 - 1e-15
        part = 1.0 if rest == 0 else 0.0 if slope(low) <= 0 else brentq(slope, low, high, xtol=1e-17, rtol=1e-15)
        q = max(-d, 0.0) + part * width
        above, variance = gained - lost - n * d, n * (2 * q + d * (1 - d))
        if variance <= 1e-18:
            return 0.0 if abs(above) < 1e-12 else inf if above > 0 else -inf
        return float(above / sqrt(variance))

    return scored(z, (gained - lost) / n)


def miettinen_nurminen(first: int, n_first: int, second: int, n_second: int) -> Method:
    """Miettinen and Nurminen 1985; second rate minus first. The likely rates are found by a search as well."""

    def z(d: float) -> float:
        def slope(p: float) -> float:
            terms = ((second, p), (first, p - d), (-(n_second - second), 1 - p), (-(n_first - first), 1 - p + d))
            return sum(count / share for count, share in terms if count)

        low, high = max(0.0, d), min(1.0, 1 + d)
        ends = low + 1e-15, high - 1e-15
        p = low if slope(ends[0]) <= 0 else high if slope(ends[1]) >= 0 else brentq(slope, *ends, xtol=1e-16, rtol=1e-15)
        total = n_first + n_second
        variance = (p * (1 - p) / n_second + (p - d) * (1 - p + d) / n_first) * total / (total - 1)
        above = second / n_second - first / n_first - d
        if variance <= 1e-15:
            return 0.0 if abs(above) < 1e-12 else inf if above > 0 else -inf
        return float(above / sqrt(variance))

    return scored(z, second / n_second - first / n_first)


def between_groups(changes: Sequence[float], groups: Sequence[Hashable]) -> Method:
    """The mean of changes, tested between groups: a t test for ten groups or more, all subsets of groups for fewer."""
    names, n = list(dict.fromkeys(groups)), len(changes)
    sums = [sum(change for change, group in zip(changes, groups, strict=True) if group == name) for name in names]
    sizes = [sum(group == name for group in groups) for name in names]
    mean, count = sum(changes) / n, len(names)
    if count >= 10:
        error = sqrt(count / (count - 1) * sum((s - mean * size) ** 2 for s, size in zip(sums, sizes, strict=True))) / n
        return student(mean, error, count - 1)
    chosen = [each for k in range(1, count + 1) for each in combinations(range(count), k)]
    means = sorted(sum(sums[i] for i in each) / sum(sizes[i] for i in each) for each in chosen)
    outside = int(0.025 * (len(means) + 1) + 1e-9)
    interval = (-1.0, 1.0) if outside < 1 else (means[outside - 1], means[-outside])
    return Method(
        lambda d: (1 + sum(each <= d for each in means)) / (len(means) + 1),
        lambda d: (1 + sum(each >= d for each in means)) / (len(means) + 1),
        interval,
    )


def student(mean: float, error: float, freedom: int) -> Method:
    """A t test of a mean with a standard error."""

    def beyond(distance: float) -> float:
        if error == 0:
            return 0.0 if distance > 0 else 1.0
        return float(t.sf(distance / error, freedom))

    reach = float(t.ppf(0.975, freedom)) * error
    return Method(lambda d: beyond(mean - d), lambda d: beyond(d - mean), (max(-1.0, mean - reach), min(1.0, mean + reach)))


def change(p: float, size: float, methods: Sequence[Method]) -> Change:
    """What several methods say together: the larger p value, the interval that contains all."""
    low, high = min(each.interval[0] for each in methods), max(each.interval[1] for each in methods)
    absent = max(max(each.at_most(-DELTA), each.at_least(DELTA)) for each in methods)
    return Change(size, p, (low, high), absent)


def paired(first: Sequence[bool], second: Sequence[bool], groups: Groups) -> Change:
    """Verdicts under two conditions on the same instructions."""
    gained = sum(b and not a for a, b in zip(first, second, strict=True))
    lost = sum(a and not b for a, b in zip(first, second, strict=True))
    n = len(first)
    p = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    methods = [tango(gained, lost, n)]
    if groups is not None and len(set(groups)) < n:
        between = between_groups([int(b) - int(a) for a, b in zip(first, second, strict=True)], groups)
        methods.append(between)
        p = max(p, min(1.0, 2 * min(between.at_most(0.0), between.at_least(0.0))))
    return change(p, (gained - lost) / n, methods)


def fisher(first: int, n_first: int, second: int, n_second: int) -> float:
    """Fisher's exact test: all tables that are no likelier than the observed one."""
    all_of_them = hypergeom(n_first + n_second, first + second, n_first)
    observed = all_of_them.pmf(first)
    likely = (all_of_them.pmf(k) for k in range(n_first + 1))
    return min(1.0, float(sum(each for each in likely if each <= observed * (1 + 1e-7))))


def independent(first: Sequence[bool], second: Sequence[bool], groups: tuple[Groups, Groups]) -> Change:
    """Verdicts on two sets of different instructions."""
    counts = sum(first), len(first), sum(second), len(second)
    size = counts[2] / counts[3] - counts[0] / counts[1]
    p, methods = fisher(*counts), [miettinen_nurminen(*counts)]
    if any(each is not None and len(set(each)) < len(each) for each in groups):
        errors, numbers = [], []
        for verdicts, each in zip((first, second), groups, strict=True):
            names, mean = list(dict.fromkeys(each or ())), sum(verdicts) / len(verdicts)
            off = [sum(v - mean for v, g in zip(verdicts, each or (), strict=True) if g == name) for name in names]
            numbers.append(len(names))
            errors.append(sqrt(len(names) / max(1, len(names) - 1) * sum(each * each for each in off)) / len(verdicts))
        fewer = min(numbers)
        if fewer >= 10:
            between = student(size, sqrt(errors[0] ** 2 + errors[1] ** 2), fewer - 1)
        else:
            between = Method(lambda _: 1.0, lambda _: 1.0, (-1.0, 1.0))
        methods.append(between)
        p = max(p, min(1.0, 2 * min(between.at_most(0.0), between.at_least(0.0))))
    return change(p, size, methods)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm 1979, by the definition of each adjusted p value."""
    order = sorted(p_values)
    steps = [min(1.0, (len(order) - rank) * p) for rank, p in enumerate(order)]
    return [max(steps[: order.index(p) + 1]) for p in p_values]


class Drawn(NamedTuple):
    """An edit against null directions of one kind."""

    n: int
    place: int
    p: float | None
    p_rank: float
    band: tuple[float, float] | None
    reach: tuple[float, float]
    value: float


def against(edit: Sequence[float], nulls: Sequence[Sequence[float]], sign: int, *, verdicts: bool, groups: Groups) -> Drawn:
    """The edit as one more draw from the null directions, and against their mean over instructions."""
    n, count = len(edit), len(nulls)
    rates = [sum(each) / n for each in nulls]
    rate = sum(edit) / n
    place = sum(sign * each >= sign * rate for each in rates)
    rank, reach = (1 + place) / (1 + count), (min(rates), max(rates))
    if count < 5:
        return Drawn(count, place, None, rank, None, reach, rate)

    def odds(share: float) -> float:
        if verdicts:
            return log((share * n + 0.5) / ((1 - share) * n + 0.5))
        share = min(max(share, 1e-9), 1 - 1e-9)
        return log(share / (1 - share))

    points = [odds(each) for each in rates]
    mean = sum(points) / count
    spread = sqrt(sum((each - mean) ** 2 for each in points) / (count - 1) * (1 + 1 / count))
    edge = float(t.ppf(0.975, count - 1)) * spread
    band = 1 / (1 + exp(-(mean - edge))), 1 / (1 + exp(-(mean + edge)))
    far = sign * (odds(rate) - mean)
    p_drawn = (0.0 if far > 0 else 1.0) if spread == 0 else float(t.sf(far / spread, count - 1))
    means = [sum(each) / count for each in zip(*nulls, strict=True)]
    over = between_groups([e - m for e, m in zip(edit, means, strict=True)], groups or range(n))
    p_over = over.at_least(0.0) if sign < 0 else over.at_most(0.0)
    return Drawn(count, place, max(p_drawn, p_over), rank, band, reach, rate)


def power(n: int, expected: float, opposite: float) -> float:
    """The chance that McNemar's exact test shows a change in the expected sense, summed over all numbers of changed verdicts."""
    total, both = 0.0, expected + opposite
    for changed in range(1, n + 1):
        enough = _enough(changed)
        if enough is not None:
            total += binom.pmf(changed, n, min(both, 1.0)) * binom.sf(enough - 1, changed, expected / both)
    return float(total)


@cache
def _enough(changed: int) -> int | None:
    """How many of the changed verdicts must go one way to be significant; None if all of them are not enough."""
    return next((k for k in range(changed + 1) if 2 * k > changed and 2 * binom.sf(k - 1, changed, 0.5) <= LEVEL), None)


def least_detectable(first: Sequence[bool], second: Sequence[bool], sign: int, groups: Groups) -> float | None:
    """The smallest true change that is found with a chance of 80 %, to 1e-4."""
    n = len(first)
    gained = sum(b and not a for a, b in zip(first, second, strict=True))
    lost = sum(a and not b for a, b in zip(first, second, strict=True))
    effect, alone = 1.0, (gained + lost - (gained - lost) ** 2 / n) / n**2
    if groups is not None and len(set(groups)) not in (1, n) and alone > 0:
        changes = [int(b) - int(a) for a, b in zip(first, second, strict=True)]
        mean, names = sum(changes) / n, set(groups)
        off = [sum(c - mean for c, g in zip(changes, groups, strict=True) if g == name) for name in names]
        effect = max(1.0, len(names) / (len(names) - 1) * sum(each * each for each in off) / n**2 / alone)
    size, opposite = max(1, int(n / effect)), (lost if sign > 0 else gained) / n
    room = sum(first) / n
    most = min(1 - room if sign > 0 else room, 1 - opposite) - opposite
    if most <= 0 or power(size, opposite + most, opposite) < 0.8:
        return None
    return float(brentq(lambda d: power(size, opposite + d, opposite) - 0.8, 1e-9, most, xtol=1e-6))
