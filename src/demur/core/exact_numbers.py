"""Quantiles, roots and binomial tests without SciPy, whose import takes longer than all computations of a report together."""

from collections.abc import Callable
from statistics import NormalDist


def normal_quantile(confidence: float) -> float:
    """The number of standard deviations around the mean that cover this share of a normal distribution."""
    return NormalDist().inv_cdf((1 + confidence) / 2)


def root(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a function that has different signs at both ends is zero: bisection, as exact as floating point numbers allow."""
    falls = function(low) > 0
    while low < (middle := (low + high) / 2) < high:
        if (function(middle) > 0) == falls:
            low = middle
        else:
            high = middle
    return middle


def sign_test(count: int, n: int) -> float:
    """Two-sided p value of the exact binomial test of an even chance, computed with whole numbers."""
    smaller, ways, term = min(count, n - count), 0, 1
    for i in range(smaller + 1):
        ways += term
        term = term * (n - i) // (i + 1)
    # The distribution is symmetric, so the other tail has the same probability. Where both meet in the middle, they cover all.
    return 1.0 if 2 * smaller >= n - 1 else 2 * ways / 2**n
