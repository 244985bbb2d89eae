"""An effect against what null directions of one kind do in the same place.

With K null effects, a further one of the same kind lies in their t prediction interval. So the p value of an effect is that of
t = (e - m) / (s sqrt(1 + 1/K)) with K - 1 degrees of freedom, where m and s are mean and standard deviation of the null effects.
Effects are log-odds, because rates near 0 or 1 are not spread like a normal variable. The rank p value, (1 + number of nulls at
least as extreme) / (K + 1), assumes nothing about the spread; it is given as a check.

That takes the instructions as given. Null directions that all do the same on them would make any other effect look certain. So
the effect must also differ from the mean of the null directions over instructions, by a paired t test, and the larger p value
counts.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

from demur.core.effects.grouped_differences import GroupedChanges
from demur.core.effects.log_odds import Outcome as Outcome
from demur.core.effects.log_odds import log_odds, rate_of
from demur.core.errors import InputError

FEWEST = 5
"""With fewer null directions of a kind, nothing can be shown against this kind: their spread is not known well enough."""


@dataclass(frozen=True)
class AgainstNull:
    """One effect against the null directions of one kind.

    Attributes:
        n: the number of null directions.
        place: how many of them reach at least as far as the effect, in the expected sense.
        p: one-sided p value: the larger of that of the effect as a further draw from the null distribution, and that of its
            difference from the mean of the nulls over instructions. None with fewer than `FEWEST` nulls.
        p_rank: one-sided p value by rank.
        band: the rates between which 95 % of such null directions lie, by the same prediction interval; None as for p.
        reach: the lowest and the highest rate of a null direction.
    """

    n: int
    place: int
    p: float | None
    p_rank: float
    band: tuple[float, float] | None
    reach: tuple[float, float]


def against_null(
    effect: Sequence[float],
    nulls: Sequence[Sequence[float]],
    sense: Literal[-1, 1],
    outcome: Outcome = "verdict",
    groups: Sequence[Hashable] | None = None,
) -> AgainstNull:
    """Compares an edit with null directions of one kind.

    Args:
        effect: the outcome of each instruction under the edit: 0 or 1 for verdicts, and 0 to 1 for probabilities.
        nulls: the same for each null direction, on the same instructions.
        sense: 1 if the edit should raise refusals, -1 if it should lower them.
        outcome: what the numbers are. Rates of verdicts get a continuity correction: half a refusal and half a non-refusal.
        groups: the group of each instruction; None if all are independent.

    Returns:
        The place of the effect and its p values.

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
    place = sum(null * sense >= rate * sense for null in rates)
    p_rank = (1 + place) / (len(nulls) + 1)
    if len(nulls) < FEWEST:
        return AgainstNull(len(nulls), place, None, p_rank, None, (min(rates), max(rates)))
    odds = [log_odds(null, len(effect), outcome) for null in rates]
    p_drawn, band = _drawn(log_odds(rate, len(effect), outcome), odds, sense)
    means = [sum(outcomes) / len(nulls) for outcomes in zip(*nulls, strict=True)]
    over_instructions = GroupedChanges.of(means, effect, groups or range(len(effect))).method
    p_over = over_instructions.p_at_least(0.0) if sense < 0 else over_instructions.p_at_most(0.0)
    return AgainstNull(len(nulls), place, max(p_drawn, p_over), p_rank, band, (min(rates), max(rates)))


def _drawn(effect: float, nulls: Sequence[float], sense: Literal[-1, 1]) -> tuple[float, tuple[float, float]]:
    """The p value of an effect as a further draw from the null distribution, and the band of such draws as rates."""
    from scipy.special import stdtr, stdtrit

    count = len(nulls)
    mean = sum(nulls) / count
    scale = math.sqrt(sum((null - mean) ** 2 for null in nulls) / (count - 1) * (1 + 1 / count))
    edge = float(stdtrit(count - 1, 0.975)) * scale
    band = (rate_of(mean - edge), rate_of(mean + edge))
    beyond = (effect - mean) * sense
    if scale == 0:
        return (0.0 if beyond > 0 else 1.0), band
    return float(stdtr(count - 1, -beyond / scale)), band
