"""The interval of an effect if the training pairs are drawn anew, too, and not only the instructions.

A direction is an estimate. An interval over test instructions holds it fixed, so it says nothing of what another sample of
training pairs would have given. The direction is therefore made again from bootstrap resamples of its pairs, and each of
these gives a rate. By the bootstrap's principle these rates lie around the rate of the direction as that lies around the
rate of the direction from endlessly many pairs. So (rate - truth) / s follows Student's t with R degrees of freedom, where
s is the root mean square distance of the R rates from the rate of the direction. It contains their bias, because it is not
taken from their own mean.

The two sources of error are independent: which instructions were asked, in groups of near-duplicates, and which pairs were
read. The distances from the rate to the ends of both intervals are added as squares, below and above (Zou and Donner 2008,
Statistics in Medicine 27, "Construction of confidence limits about effect measures: a general approach"). All resamples
answer the same instructions, so the part of the error that belongs to both at once is counted twice. That can only make the
interval wider (Owen 2007, Annals of Applied Statistics 1, "The pigeonhole bootstrap").

Distances are measured in log-odds of the rate, because rates near 0 or 1 are spread unevenly. On the scale of the rates,
the interval covered the truth in 80 to 92 % of simulated studies where it should in 95 %; in log-odds, in 93 to 97 %.
"""

import math
from collections.abc import Sequence

from demur.core.effects.log_odds import Outcome, log_odds, rate_of
from demur.core.errors import InputError


def interval_over_pairs(
    before: float,
    rate: float,
    interval: tuple[float, float],
    resampled: Sequence[float],
    n: int,
    outcome: Outcome = "verdict",
) -> tuple[float, float]:
    """The 95 % interval of a change of a rate over instructions and training pairs.

    Args:
        before: the rate without the edit.
        rate: the rate with the direction from all training pairs.
        interval: the 95 % interval of the change over instructions, with the direction held fixed.
        resampled: the rate with the direction of each resample on the same instructions, two or more.
        n: the number of instructions.
        outcome: whether these are rates of verdicts or mean probabilities.

    Returns:
        An interval that holds `interval`, between -1 and 1.

    Raises:
        InputError: for fewer than two resamples.

    Example:
        >>> low, high = interval_over_pairs(0.8, 0.3, (-0.6, -0.4), [0.3, 0.3, 0.3, 0.3, 0.3], 100)
        >>> round(low, 2), round(high, 2)
        (-0.6, -0.4)
        >>> low, high = interval_over_pairs(0.8, 0.3, (-0.6, -0.4), [0.2, 0.35, 0.5, 0.1, 0.3], 100)
        >>> round(low, 2), round(high, 2)
        (-0.75, -0.05)
    """
    if len(resampled) < 2:
        raise InputError(f"an interval over training pairs needs two resamples or more, not {len(resampled)}")
    from scipy.special import stdtrit

    count, centre = len(resampled), log_odds(rate, n, outcome)
    distance = math.sqrt(sum((log_odds(each, n, outcome) - centre) ** 2 for each in resampled) / count)
    reach = float(stdtrit(count, 0.975)) * distance
    low, high = (min(1.0, max(0.0, before + bound)) for bound in interval)
    below, above = math.hypot(centre - log_odds(low, n, outcome), reach), math.hypot(log_odds(high, n, outcome) - centre, reach)
    # The continuity correction moves a rate, so the ends are taken as distances from the rate that was moved.
    middle = rate_of(centre)
    change = rate - before
    found = change - (middle - rate_of(centre - below)), change + (rate_of(centre + above) - middle)
    return max(-1.0, min(interval[0], found[0])), min(1.0, max(interval[1], found[1]))
