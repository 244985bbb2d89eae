"""An effect against what null directions of one kind do in the same place.

With K null effects, a further one of the same kind lies in their t prediction interval. So the p value of an effect is that of
t = (e - m) / (s sqrt(1 + 1/K)) with K - 1 degrees of freedom, where m and s are mean and standard deviation of the null effects.
Effects are log-odds, because rates near 0 or 1 are not spread like a normal variable. The rank p value, (1 + number of nulls at
least as extreme) / (K + 1), assumes nothing about the spread; it is given as a check.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from demur.core.errors import InputError

FEWEST = 5
"""With fewer null directions of a kind, nothing can be shown against this kind: their spread is not known well enough."""

Outcome = Literal["verdict", "probability"]
"""What is known of each instruction: whether it was refused, or the probability that it is."""


@dataclass(frozen=True)
class AgainstNull:
    """One effect against the null directions of one kind.

    Attributes:
        n: the number of null directions.
        place: how many of them reach at least as far as the effect, in the expected sense.
        p: one-sided p value of the effect as a further draw from the null distribution; None with fewer than `FEWEST` nulls.
        p_rank: one-sided p value by rank.
        band: the rates between which 95 % of such null directions lie, by the same prediction interval; None as for p.
    """

    n: int
    place: int
    p: float | None
    p_rank: float
    band: tuple[float, float] | None


def against_null(
    effect: Sequence[float], nulls: Sequence[Sequence[float]], sense: Literal[-1, 1], outcome: Outcome = "verdict"
) -> AgainstNull:
    """Compares an edit with null directions of one kind.

    Args:
        effect: the outcome of each instruction under the edit: 0 or 1 for verdicts, and 0 to 1 for probabilities.
        nulls: the same for each null direction, on the same instructions.
        sense: 1 if the edit should raise refusals, -1 if it should lower them.
        outcome: what the numbers are. Rates of verdicts get a continuity correction: half a refusal and half a non-refusal.

    Returns:
        The place of the effect and its p values. The spread of rates of verdicts is taken to be at least what one more verdict
        would change at their mean, so that a few equal rates do not look like a certain null.

    Raises:
        InputError: if there is no null direction, or if the lists are empty or differ in length.

    Example:
        >>> nulls = [[1] * count + [0] * (50 - count) for count in (40, 41, 43, 44, 45)]
        >>> found = against_null([1] * 10 + [0] * 40, nulls, sense=-1)
        >>> found.place, round(found.p, 4), round(found.p_rank, 2), [round(rate, 2) for rate in found.band]
        (0, 0.0004, 0.17, [0.68, 0.94])
    """
    if not nulls or not effect or any(len(null) != len(effect) for null in nulls):
        raise InputError(
            f"an effect on {len(effect)} instructions needs null directions on the same ones, not {sorted(map(len, nulls))}"
        )
    rates = [sum(null) / len(null) for null in nulls]
    rate = sum(effect) / len(effect)
    count = len(nulls)
    place = sum(null * sense >= rate * sense for null in rates)
    p_rank = (1 + place) / (count + 1)
    if count < FEWEST:
        return AgainstNull(count, place, None, p_rank, None)
    from scipy.special import stdtr, stdtrit

    odds = [_log_odds(null, len(effect), outcome) for null in rates]
    mean = sum(odds) / count
    spread = math.sqrt(sum((one - mean) ** 2 for one in odds) / (count - 1))
    reach = max(spread, _one_verdict(sum(rates) / count, len(effect)) if outcome == "verdict" else 1e-9) * math.sqrt(
        1 + 1 / count
    )
    distance = (_log_odds(rate, len(effect), outcome) - mean) * sense
    edge = float(stdtrit(count - 1, 0.975)) * reach
    p = float(stdtr(count - 1, -distance / reach))
    return AgainstNull(count, place, p, p_rank, (_rate(mean - edge), _rate(mean + edge)))


def _log_odds(rate: float, n: int, outcome: Outcome) -> float:
    if outcome == "verdict":
        return math.log((rate * n + 0.5) / (n - rate * n + 0.5))
    rate = min(max(rate, 1e-9), 1 - 1e-9)
    return math.log(rate / (1 - rate))


def _one_verdict(rate: float, n: int) -> float:
    """The change of the log-odds if one verdict more is not that of the majority's side of 1/2."""
    towards_half = rate + (1 / n if rate < 0.5 else -1 / n)
    return abs(_log_odds(towards_half, n, "verdict") - _log_odds(rate, n, "verdict"))


def _rate(odds: float) -> float:
    return 1 / (1 + math.exp(-odds))
