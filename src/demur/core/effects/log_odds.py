"""Rates as log-odds and back. Rates near 0 or 1 are spread unevenly; their log-odds are not."""

import math
from typing import Literal

Outcome = Literal["verdict", "probability"]
"""What is known of each instruction: whether it was refused, or the probability that it is."""


def log_odds(rate: float, n: int, outcome: Outcome = "verdict") -> float:
    """The log-odds of a rate.

    Args:
        rate: the rate, as a fraction.
        n: the number of instructions.
        outcome: a rate of verdicts gets a continuity correction, half a refusal and half a non-refusal, so that rates of 0 and 1
            have log-odds.
    """
    if outcome == "verdict":
        return math.log((rate * n + 0.5) / (n - rate * n + 0.5))
    rate = min(max(rate, 1e-9), 1 - 1e-9)
    return math.log(rate / (1 - rate))


def rate_of(odds: float) -> float:
    """The rate that has these log-odds."""
    return 1 / (1 + math.exp(-odds))
