"""The difference of two paired rates where the pairs are independent: the score test and interval of Tango (1998).

Source: T. Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample design",
Statistics in Medicine 17, 1998.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

from demur.core.errors import InputError

_NORMAL = NormalDist()
_HALVINGS = 45
"""An interval of length 2 that is halved this often is shorter than 1e-13."""


@dataclass(frozen=True)
class PairedScores:
    """Pairs of verdicts, and what they say of the difference of the two rates: second minus first condition.

    Attributes:
        gained: pairs that are refusals in the second condition only.
        lost: pairs that are refusals in the first condition only.
        n: all pairs.
    """

    gained: int
    lost: int
    n: int

    def z(self, difference: float) -> float:
        """Tango's score statistic: how many standard errors the observed difference lies above a supposed one.

        Args:
            difference: the supposed difference, as a fraction between -1 and 1.

        Returns:
            (gained - lost - n d) / sqrt(n (2 q + d (1 - d))). Here q is the most likely share of lost pairs if the difference is
            d: the larger root of 2 n q^2 + (d (2 n - gained + lost) - gained - lost) q - lost d (1 - d) = 0.
        """
        above = self.gained - self.lost - self.n * difference
        linear = difference * (2 * self.n - self.gained + self.lost) - self.gained - self.lost
        constant = -self.lost * difference * (1 - difference)
        lost_share = (math.sqrt(max(linear * linear - 8 * self.n * constant, 0.0)) - linear) / (4 * self.n)
        variance = self.n * (2 * lost_share + difference * (1 - difference))
        if variance <= 0:
            return 0.0 if above == 0 else math.copysign(math.inf, above)
        return above / math.sqrt(variance)

    def p_at_most(self, difference: float) -> float:
        """One-sided p value against "the difference is at most this"."""
        return 1 - _cdf(self.z(difference))

    def p_at_least(self, difference: float) -> float:
        """One-sided p value against "the difference is at least this"."""
        return _cdf(self.z(difference))

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """All differences that the score test does not reject. It has a width even if no pair differs."""
        return _interval(self, confidence)


@lru_cache(maxsize=4096)
def _interval(scores: PairedScores, confidence: float) -> tuple[float, float]:
    limit, observed = _NORMAL.inv_cdf((1 + confidence) / 2), (scores.gained - scores.lost) / scores.n
    return _crossing(scores, limit, -1.0, observed), _crossing(scores, -limit, observed, 1.0)


def _crossing(scores: PairedScores, level: float, low: float, high: float) -> float:
    """Where the statistic, which falls as the supposed difference grows, crosses a level."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if scores.z(middle) > level else (low, middle)
    return (low + high) / 2


def _cdf(z: float) -> float:
    return _NORMAL.cdf(z) if math.isfinite(z) else float(z > 0)


def paired_interval(both: int, gained: int, lost: int, neither: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a difference of two paired rates, for independent pairs: Tango's score interval (1998).

    Args:
        both: pairs that are refusals in both conditions.
        gained: pairs that are refusals in the second condition only.
        lost: pairs that are refusals in the first condition only.
        neither: pairs that are refusals in no condition.
        confidence: the intended coverage of the interval.

    Returns:
        The bounds of the second rate minus the first, as fractions.

    Raises:
        InputError: for a negative count, and if there is no pair.

    Example:
        >>> low, high = paired_interval(both=1, gained=7, lost=1, neither=12)
        >>> round(low, 4), round(high, 4)
        (0.026, 0.5172)
    """
    n = both + gained + lost + neither
    if n < 1 or min(both, gained, lost, neither) < 0:
        raise InputError(
            f"a paired interval needs at least one pair and no count below 0, not {both}, {gained}, {lost} and {neither}"
        )
    return PairedScores(gained, lost, n).interval(confidence)
