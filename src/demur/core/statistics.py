"""Intervals and tests for refusal counts. Wald intervals are not used: they are unreliable for rates near 0 or 1.

Rates under different interventions are measured on the same instructions, so they are compared in pairs. If only a count was
published, verdicts cannot be paired, so two independent proportions are compared. The agreement of two labellers is Cohen's kappa
with a bootstrap interval. Changes between paired verdicts, with their intervals, are in `demur.core.effects`.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from operator import and_
from typing import TYPE_CHECKING, Any, TypeVar

from demur.core.errors import InputError
from demur.core.exact_numbers import normal_quantile, root, sign_test

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEVEL = 0.05
"""The significance level of every test in demur. In a family of several tests it applies after Holm's correction."""


def wilson(count: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a binomial rate (Wilson 1927).

    Args:
        count: the number of successes.
        n: the number of trials, at least 1.
        confidence: the coverage of the interval.

    Returns:
        The lower and the upper bound, between 0 and 1.

    Raises:
        InputError: for n = 0 or a count outside 0..n.

    Example:
        >>> [round(bound, 3) for bound in wilson(0, 20)]
        [0.0, 0.161]
    """
    if n < 1 or not 0 <= count <= n:
        raise InputError(f"an interval needs at least one trial and a count from 0 to the number of trials, not {count} of {n}")
    z2 = normal_quantile(confidence) ** 2
    middle, half = count + z2 / 2, math.sqrt(z2 * (count * (n - count) / n + z2 / 4))
    # At a count of 0 or n, rounding could move a bound off the end of the scale.
    return (middle - half) / (n + z2) if count else 0.0, (middle + half) / (n + z2) if count < n else 1.0


def mean_probability_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Interval of the mean of probabilities over a sample: Student's t on the log-odds of the mean, by the delta method.

    The interval stays within 0 to 1. For 20 to 100 values from beta distributions it covers in 93 to 96 % of samples, but less
    often if almost all of the mean comes from a few of the values (80 % for 20 values from a beta distribution of 0.05 and 2).

    Args:
        values: the probabilities, independent of each other.
        confidence: the coverage of the interval.

    Returns:
        The bounds. None for fewer than two values, and if the mean is 0 or 1.

    Example:
        >>> low, high = mean_probability_interval([0.1, 0.3, 0.2, 0.4])
        >>> round(low, 3), round(high, 3)
        (0.1, 0.499)
    """
    from scipy.stats import t

    n, mean = len(values), sum(values) / max(1, len(values))
    if n < 2 or not 0 < mean < 1:
        return None
    error = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1) / n)
    centre, half = math.log(mean / (1 - mean)), float(t.ppf((1 + confidence) / 2, n - 1)) * error / (mean * (1 - mean))
    # Written so that no power of e overflows.
    low, high = ((1 + math.tanh(bound / 2)) / 2 for bound in (centre - half, centre + half))
    return low, high


def auroc_interval(auroc: float, n: int, m: int, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of an area under the ROC curve (Newcombe 2006, method 5).

    Args:
        auroc: the area, between 0 and 1.
        n: the number of cases on one side, at least 1.
        m: the number of cases on the other side, at least 1.
        confidence: the coverage of the interval.

    Returns:
        The lower and the upper bound. As with Wilson's interval, they differ even if the area is 0 or 1.

    Raises:
        InputError: for an area outside 0 to 1 or a side without cases.
    """
    if n < 1 or m < 1 or not 0 <= auroc <= 1:
        raise InputError(
            f"an area under the ROC curve must be between 0 and 1, with at least one case on each side, not {auroc} over {n}, {m}"
        )
    if auroc == 0:
        low, high = auroc_interval(1.0, n, m, confidence)
        return 1 - high, 1 - low
    z2, inner = normal_quantile(confidence) ** 2, (n + m) / 2 - 1

    def spread(area: float) -> float:
        return z2 * area / (n * m) * (1 + inner * ((1 - area) / (2 - area) + area / (1 + area)))

    if auroc == 1:
        # At 1 both sides of the equation are 0. Dividing by (1 - area) removes this root and leaves the other one.
        return root(lambda area: 1 - area - spread(area), 0.0, 1.0), 1.0

    def excess(area: float) -> float:
        return (area - auroc) ** 2 - (1 - area) * spread(area)

    return root(excess, 0.0, auroc), root(excess, auroc, 1.0)


@dataclass(frozen=True)
class Paired:
    """Verdicts under two conditions on the same instructions.

    Attributes:
        n: the number of instructions.
        gained: how many are refused under the second condition only.
        lost: how many are refused under the first condition only.
        p_value: of the exact McNemar test.
    """

    n: int
    gained: int
    lost: int
    p_value: float

    @property
    def difference(self) -> float:
        """Change of the refusal rate: second minus first condition."""
        return (self.gained - self.lost) / self.n


Key = TypeVar("Key", bound=Hashable)


def shared(first: Mapping[Key, bool], second: Mapping[Key, bool]) -> tuple[list[bool], list[bool]]:
    """The verdicts under both conditions on the instructions that both have, in the same order."""
    common = [key for key in first if key in second]
    return [first[key] for key in common], [second[key] for key in common]


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> Paired:
    """Exact two-sided McNemar test: a binomial test on the pairs that differ (McNemar 1947).

    Args:
        first: whether each instruction is refused under the first condition.
        second: the same under the second condition, in the same order.

    Returns:
        The counts and the p value, which is 1 if no pair differs.

    Raises:
        InputError: if the lists are empty or differ in length.
    """
    if len(first) != len(second) or not first:
        raise InputError(
            f"a paired test needs the same number of verdicts on both sides, at least one, not {len(first)} and {len(second)}"
        )
    # Without a loop in Python: a large run calls this tens of thousands of times.
    both = sum(map(and_, map(bool, first), map(bool, second)))
    gained, lost = sum(map(bool, second)) - both, sum(map(bool, first)) - both
    p_value = sign_test(gained, gained + lost) if gained + lost else 1.0
    return Paired(len(first), gained, lost, p_value)


def fisher(first: int, n_first: int, second: int, n_second: int) -> float:
    """Two-sided p value of Fisher's exact test for two independent proportions (Fisher 1934).

    Args:
        first: the count on one side.
        n_first: the trials on that side.
        second: the count on the other side.
        n_second: the trials on that side.

    Raises:
        InputError: for a side without trials or a count outside 0..n.
    """
    from scipy.stats import fisher_exact

    for count, n in ((first, n_first), (second, n_second)):
        if n < 1 or not 0 <= count <= n:
            raise InputError(
                f"an exact test needs at least one trial and a count from 0 to the number of trials, not {count} of {n}"
            )
    return min(1.0, float(fisher_exact([[first, n_first - first], [second, n_second - second]]).pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (Holm 1979), which controls the chance of any false rejection in the family.

    Args:
        p_values: the p values of all tests of the family.

    Returns:
        The adjusted p values, in the order given.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def cohen_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """Agreement of two labellers beyond chance (Cohen 1960).

    Args:
        first: the labels of one labeller.
        second: the labels of the other, in the same order.

    Returns:
        1 for full agreement; 0 for the agreement that their label counts alone would give.

    Raises:
        InputError: if the lists are empty or differ in length. Also if both labellers give every item the same label:
            agreement by chance is then complete, and kappa is not defined.
    """
    kappa = _kappas(*_numbered(first, second))[0]
    if math.isnan(kappa):
        raise InputError(f"both labellers call all {len(first)} items {first[0]!r}, so agreement beyond chance is not defined")
    return float(kappa)


def kappa_interval(
    first: Sequence[Hashable], second: Sequence[Hashable], confidence: float = 0.95, *, draws: int = 5000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of Cohen's kappa (Efron 1979).

    Args:
        first: the labels of one labeller. Items should be independent: answers to different instructions.
        second: the labels of the other, in the same order.
        confidence: the coverage of the interval.
        draws: the number of bootstrap samples. Samples in which kappa is not defined are left out.
        seed: the seed of the samples.

    Returns:
        The lower and the upper bound.

    Raises:
        InputError: as `cohen_kappa`.
    """
    import numpy as np

    cohen_kappa(first, second)
    one, other = _numbered(first, second)
    chosen = np.random.default_rng(seed).integers(0, len(first), (draws, len(first)))
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(_kappas(one[0][chosen], other[0][chosen]), (tail, 1 - tail))
    return float(low), float(high)


def _numbered(first: Sequence[Hashable], second: Sequence[Hashable]) -> "tuple[NDArray[Any], NDArray[Any]]":
    """Both lists as arrays of one row, in which a number stands for each label."""
    import numpy as np

    if len(first) != len(second) or not first:
        raise InputError(
            f"agreement needs the same number of labels on both sides, at least one, not {len(first)} and {len(second)}"
        )
    numbers = {label: number for number, label in enumerate(dict.fromkeys((*first, *second)))}
    return np.array([[numbers[label] for label in first]]), np.array([[numbers[label] for label in second]])


def _kappas(first: "NDArray[Any]", second: "NDArray[Any]") -> "NDArray[Any]":
    """Kappa of each row; NaN if agreement by chance is complete."""
    import numpy as np

    observed = (first == second).mean(axis=1)
    labels = range(int(max(first.max(), second.max())) + 1)
    chance = sum(((first == label).mean(axis=1) * (second == label).mean(axis=1) for label in labels), np.zeros(len(first)))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(chance < 1, (observed - chance) / (1 - chance), np.nan)
