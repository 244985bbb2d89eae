"""The exact probability of a refusal in the cells in which a run measured it: a second outcome beside the refusal rate."""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from demur.analysis.summary import Summary
from demur.core import number_format

_MEASUREMENT = "refusal-probability"


@dataclass(frozen=True)
class Likelihood:
    """The mean probability that a completion of a cell is a refusal, if it is sampled at temperature 1.

    Attributes:
        mean: the mean over instructions.
        interval: its 95 % interval, None if it is not defined.
        n: the number of instructions.
    """

    mean: float
    interval: tuple[float, float] | None
    n: int

    def __str__(self) -> str:
        digits = 1 if self.n > 100 or self.mean < 0.1 else 0
        rest = "" if self.interval is None else f" {number_format.interval(self.interval, digits)}"
        return f"{100 * self.mean:.{digits}f} %{rest}"

    @classmethod
    def of(cls, facts: Mapping[str, JsonValue]) -> "Likelihood | None":
        """Reads the summary of a measurement; None if another version of the measurement made it."""
        mean, n, bounds = facts.get("mean"), facts.get("n"), facts.get("ci95")
        if not isinstance(mean, float | int) or not isinstance(n, int):
            return None
        known = isinstance(bounds, list) and len(bounds) == 2
        ends = [float(bound) for bound in bounds if isinstance(bound, float | int)] if known and isinstance(bounds, list) else []
        return cls(float(mean), (ends[0], ends[1]) if len(ends) == 2 else None, n)


def likelihoods(summary: Summary) -> dict[tuple[str, str], Likelihood]:
    """The likelihoods that a run measured.

    Args:
        summary: the run's summary.

    Returns:
        (cell key, judge) -> likelihood. If one was measured with several settings, that of the most instructions.
    """
    found: dict[tuple[str, str], Likelihood] = {}
    for one in summary.measurements:
        if one.name != _MEASUREMENT:
            continue
        key, likelihood = (one.subject, str(one.summary.get("judge"))), Likelihood.of(one.summary)
        if likelihood is not None and (key not in found or likelihood.n > found[key].n):
            found[key] = likelihood
    return found


def likelihoods_in_words(summary: Summary) -> str:
    """What the second outcome is, for readers of the page; empty if the run did not measure it."""
    counts = sorted({each.n for each in likelihoods(summary).values()})
    if not counts:
        return ""
    many = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return (
        "A rate counts greedy completions, which always take the likeliest next token. The probability of a refusal is a second "
        "outcome: how much of what the checkpoint would write at temperature 1 begins with one of the judge's phrases, computed "
        f"exactly and averaged over {many} instructions. Neither is an estimate of the other. The numbers of the figures and the "
        "table of all cells have both."
    )
