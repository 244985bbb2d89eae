"""Rates corrected for the errors of a judge, from a sample that people labelled.

A judge calls some completions refusals. Of those that it calls refusals, and of the others, some are labelled. From these two
samples follow sensitivity and specificity, and the rate that the people would have given.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

DRAWS = 4000
"""Draws from which the intervals are read. Their ends then vary by about 0.1 points of a rate."""


@dataclass(frozen=True)
class Labelled:
    """Labelled completions on which a judge said the same.

    Attributes:
        truths: what people said of each: 1 for a refusal, 0 for none; a fraction where they disagree.
        weights: how many completions each one stands for.
    """

    truths: tuple[float, ...] = ()
    weights: tuple[float, ...] = ()

    @property
    def n(self) -> int:
        """How many there are."""
        return len(self.truths)

    @property
    def rate(self) -> float:
        """The weighted share of refusals; 0 for none."""
        total = sum(self.weights)
        return sum(truth * weight for truth, weight in zip(self.truths, self.weights, strict=True)) / total if total else 0.0

    @property
    def worth(self) -> float:
        """How many completions with equal weights they are worth (Kish 1965)."""
        squares = sum(weight * weight for weight in self.weights)
        return sum(self.weights) ** 2 / squares if squares else 0.0

    def draws(self, generator: "Any", size: int) -> "NDArray[Any]":
        """Draws of the share of refusals from its posterior distribution under Jeffreys' prior, a beta distribution."""
        worth = self.worth
        refusals = self.rate * worth
        found: NDArray[Any] = generator.beta(refusals + 0.5, worth - refusals + 0.5, size)
        return found


@dataclass(frozen=True)
class Counted:
    """What a judge says of all completions of some cells.

    Attributes:
        n: completions.
        refusals: how many of them the judge calls refusals.
        design_effect: by how much their rate varies more than that of as many independent completions.
    """

    n: int
    refusals: int
    design_effect: float = 1.0

    @property
    def rate(self) -> float:
        """The rate of the judge."""
        return self.refusals / self.n

    def draws(self, generator: "Any", size: int) -> "NDArray[Any]":
        """Draws of the rate from its posterior distribution under Jeffreys' prior."""
        refusals, others = self.refusals / self.design_effect, (self.n - self.refusals) / self.design_effect
        found: NDArray[Any] = generator.beta(refusals + 0.5, others + 0.5, size)
        return found


@dataclass(frozen=True)
class Corrected:
    """A corrected rate with its interval."""

    rate: float
    interval: tuple[float, float]


def prediction_powered(
    counted: Counted, refused: Labelled, other: Labelled, confidence: float = 0.95, *, seed: int = 0
) -> Corrected:
    """The prediction-powered rate: the rate of the judge on all completions, plus the mean of label minus verdict.

    The mean is that of the labelled completions, with weights that make the labelled refusals and others stand for all refusals
    and others. For a judge that says yes or no this is the estimate with the best power tuning (PPI++, Angelopoulos, Duchi and
    Zrnic 2023; strata: Fisch et al. 2024, "Stratified prediction-powered inference"), and the one that Tenenbein (1970) gave for
    double sampling. It assumes nothing of how the judge errs elsewhere.

    The interval has the 2.5th and the 97.5th percentile of draws, in which the judge's rate and both shares vary by their beta
    distributions (Jeffreys' prior). It has a width even if no labelled verdict is wrong.

    Args:
        counted: the verdicts on all completions.
        refused: labelled completions that the judge calls refusals.
        other: labelled completions that it does not call refusals.
        confidence: the coverage of the interval.
        seed: the seed of the draws.

    Example:
        >>> found = prediction_powered(Counted(100, 40), Labelled((1,) * 10, (4,) * 10), Labelled((1, 0, 0, 0, 0), (12,) * 5))
        >>> round(found.rate, 3)
        0.52
    """
    import numpy as np

    generator = np.random.default_rng(seed)
    rate = counted.rate * refused.rate + (1 - counted.rate) * other.rate
    said = counted.draws(generator, DRAWS)
    drawn = said * refused.draws(generator, DRAWS) + (1 - said) * other.draws(generator, DRAWS)
    low, high = _percentiles(drawn, confidence)
    # With no refusal at all, or nothing else, Jeffreys' interval leaves out the estimate itself.
    return Corrected(rate, (min(low, rate), max(high, rate)))


@dataclass(frozen=True)
class JudgeErrors:
    """How a judge errs on some completions, from their verdicts and the labels of a part of them.

    Attributes:
        counted: the verdicts on all of them.
        refused: labelled ones that the judge calls refusals.
        other: labelled ones that it does not call refusals.
    """

    counted: Counted
    refused: Labelled
    other: Labelled

    @property
    def sensitivity(self) -> float | None:
        """The share of refusals that the judge finds; None if people found no refusals."""
        return _value(self._rates(self.counted.rate, self.refused.rate, self.other.rate)[0])

    @property
    def specificity(self) -> float | None:
        """The share of other completions that the judge does not call refusals; None if people found only refusals."""
        return _value(self._rates(self.counted.rate, self.refused.rate, self.other.rate)[1])

    def draws(self, generator: "Any", size: int) -> "tuple[NDArray[Any], NDArray[Any]]":
        """Draws of sensitivity and specificity."""
        said = self.counted.draws(generator, size)
        return self._rates(said, self.refused.draws(generator, size), self.other.draws(generator, size))

    @staticmethod
    def _rates(said: "Any", right: "Any", missed: "Any") -> "tuple[NDArray[Any], NDArray[Any]]":
        """Sensitivity and specificity by Bayes' rule, because labels are drawn by verdict (Begg and Greenes 1983)."""
        import numpy as np

        said, right, missed = (np.asarray(one, dtype=float) for one in (said, right, missed))
        refusals, others = said * right + (1 - said) * missed, said * (1 - right) + (1 - said) * (1 - missed)
        with np.errstate(invalid="ignore", divide="ignore"):
            return said * right / refusals, (1 - said) * (1 - missed) / others


def rogan_gladen(counted: Counted, errors: JudgeErrors, confidence: float = 0.95, *, seed: int = 0) -> Corrected | None:
    """The rate of a judge corrected by its sensitivity and specificity (Rogan and Gladen 1978).

    The rate is `(rate + specificity - 1) / (sensitivity + specificity - 1)`, kept within 0 and 1. It assumes that the judge errs
    on these completions as on those of `errors`. Sensitivity and specificity are corrected for the drawing of labels by verdict.
    The interval has percentiles of draws in which the judge's rate and both shares vary by their beta distributions, so that it
    counts the uncertainty of all three (as Lang and Reiczigel 2014 do).

    Args:
        counted: the verdicts on the completions whose rate is corrected.
        errors: how the judge errs, on these or on further completions.
        confidence: the coverage of the interval.
        seed: the seed of the draws.

    Returns:
        The rate; None if sensitivity and specificity are together at most 1, as those of a judge that guesses, or not known. Also
        None if nearly every draw lies outside 0 and 1: the judge then errs on these completions in another way.
    """
    import numpy as np

    sensitivity, specificity = errors.sensitivity, errors.specificity
    if sensitivity is None or specificity is None or sensitivity + specificity <= 1:
        return None
    rate = (counted.rate + specificity - 1) / (sensitivity + specificity - 1)
    generator = np.random.default_rng(seed)
    # Where the errors are those of the same completions, the judge's rate is one and the same number in both places.
    found, kept = errors.draws(generator, DRAWS)
    said = counted.draws(np.random.default_rng(seed) if errors.counted == counted else generator, DRAWS)
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = np.where(found + kept > 1, (said + kept - 1) / (found + kept - 1), np.nan)
    # A draw in which the judge is no better than a guess says nothing of the rate, so it can be anything.
    uniform = generator.uniform(size=DRAWS)
    low, high = _percentiles(np.where(np.isnan(drawn), uniform, drawn), confidence)
    if high <= 0 or low >= 1:
        return None
    return Corrected(min(1.0, max(0.0, rate)), (max(0.0, low), min(1.0, high)))


def _value(found: "NDArray[Any]") -> float | None:
    return None if found != found else float(found)


def _percentiles(drawn: "NDArray[Any]", confidence: float) -> tuple[float, float]:
    import numpy as np

    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, (tail, 1 - tail))
    return float(low), float(high)


def design_effect(refusals: Sequence[bool], groups: Sequence[object]) -> float:
    """By how much a rate varies more than that of independent completions, because completions come in groups.

    It is the variance of the rate between groups (Liang and Zeger 1986) as a multiple of the binomial variance (Kish 1965), and
    at least 1.

    Args:
        refusals: the verdicts.
        groups: the group of each: its instruction.

    Returns:
        The design effect; the mean size of a group if all verdicts are the same, because nothing then shows how alike they are.
    """
    n, rate = len(refusals), sum(refusals) / len(refusals)
    sums: dict[object, float] = {}
    for refusal, group in zip(refusals, groups, strict=True):
        sums[group] = sums.get(group, 0.0) + refusal - rate
    count = len(sums)
    if not 0 < rate < 1 or count < 2:
        return n / count
    between = count / (count - 1) * sum(each * each for each in sums.values())
    return max(1.0, between / (n * rate * (1 - rate)))
