"""Cohen's kappa where items have weights and come in groups: agreement on a sample that was drawn with unequal chances.

Completions of one instruction are alike, so the bootstrap draws whole instructions. Without weights and groups the estimate is
that of `demur.core.statistics.cohen_kappa`.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from demur.core.errors import InputError
from demur.core.statistics import wilson

if TYPE_CHECKING:
    from numpy.typing import NDArray

DRAWS, LEAST_GROUPS = 1000, 6
"""Bootstrap samples, and the fewest groups that have an interval."""


@dataclass(frozen=True)
class Agreed:
    """How far two raters agree.

    Attributes:
        n: items.
        kappa: Cohen's kappa; None if both give every item one and the same label, where it is not defined.
        interval: its interval; None for fewer than six groups, if kappa is not defined, and if one of them gives every item the
            same label, because kappa is then 0 whatever the other one says.
        observed: the weighted share of items on which they agree.
        labels: the labels of rows and columns of the table.
        table: counts of items, without weights: rows are the first rater's labels, columns the second's.
    """

    n: int
    kappa: float | None
    interval: tuple[float, float] | None
    observed: float
    labels: tuple[str, ...]
    table: tuple[tuple[int, ...], ...]


def agreement(
    first: Sequence[str],
    second: Sequence[str],
    labels: Sequence[str],
    groups: Sequence[Hashable],
    weights: Sequence[float] | None = None,
    confidence: float = 0.95,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Agreed:
    """Cohen's kappa (1960) with weights for items, and a percentile bootstrap over groups (Field and Welsh 2007, "Bootstrapping
    clustered data").

    If no item has different labels, every bootstrap sample agrees, and the interval would be a point. Its lower bound is then
    kappa at the lower Wilson bound of the agreement, over as many items as weights and groups are worth.

    Args:
        first: the first rater's labels.
        second: the second rater's labels of the same items.
        labels: all labels, in the order of the table.
        groups: the group of each item.
        weights: how many items each one stands for; 1 unless given.
        confidence: the coverage of the interval.
        draws: the number of bootstrap samples.
        seed: the seed of the bootstrap.

    Raises:
        InputError: if the lists are empty or differ in length, or a label is not among `labels`.

    Example:
        >>> found = agreement(["yes", "yes", "no", "no"], ["yes", "no", "no", "no"], ["yes", "no"], range(4))
        >>> found.kappa, found.table
        (0.5, ((1, 1), (0, 2)))
    """
    import numpy as np

    n = len(first)
    weights = [1.0] * n if weights is None else weights
    if not n or not n == len(second) == len(groups) == len(weights):
        raise InputError(f"agreement needs the same number of labels on both sides, at least one, not {n} and {len(second)}")
    places = {label: place for place, label in enumerate(labels)}
    unknown = {*first, *second} - places.keys()
    if unknown:
        raise InputError(f"{sorted(unknown)[0]!r} is not among the labels {', '.join(labels)}")
    count, numbers = len(labels), {group: number for number, group in enumerate(dict.fromkeys(groups))}
    pairs = [places[one] * count + places[other] for one, other in zip(first, second, strict=True)]
    cells = count * count
    places_of = [numbers[group] * cells + pair for group, pair in zip(groups, pairs, strict=True)]
    by_group = np.bincount(places_of, weights, len(numbers) * cells).reshape(len(numbers), cells)
    kappa, observed = (float(one[0]) for one in _kappas(by_group.sum(axis=0)[None], count))
    interval = None
    if len(numbers) >= LEAST_GROUPS and len(set(first)) > 1 and len(set(second)) > 1:
        if any(one != other for one, other in zip(first, second, strict=True)):
            interval = _bootstrapped(by_group, count, confidence, draws, seed)
        else:
            interval = _of_full_agreement(by_group, count, min(len(numbers), _worth(weights)))
    table = np.bincount(pairs, minlength=count * count).reshape(count, count)
    rows = tuple(tuple(int(value) for value in row) for row in table)
    return Agreed(n, None if np.isnan(kappa) else kappa, interval, observed, tuple(labels), rows)


def _worth(weights: Sequence[float]) -> int:
    """How many items with equal weights the items are worth (Kish 1965)."""
    return max(1, int(sum(weights) ** 2 / sum(weight * weight for weight in weights)))


def _bootstrapped(by_group: "NDArray[Any]", labels: int, confidence: float, draws: int, seed: int) -> tuple[float, float]:
    import numpy as np

    groups = len(by_group)
    drawn = np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), draws)
    kappas, _ = _kappas(drawn @ by_group, labels)
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(kappas, (tail, 1 - tail))
    return float(low), float(high)


def _of_full_agreement(by_group: "NDArray[Any]", labels: int, n: int) -> tuple[float, float]:
    table = by_group.sum(axis=0).reshape(labels, labels)
    shares = table / table.sum()
    chance = float((shares.sum(axis=0) * shares.sum(axis=1)).sum())
    return max(-1.0, (wilson(n, n)[0] - chance) / (1 - chance)), 1.0


def _kappas(tables: "NDArray[Any]", labels: int) -> "tuple[NDArray[Any], NDArray[Any]]":
    """Kappa and observed agreement of each row of flat tables; kappa is NaN where agreement by chance is complete."""
    import numpy as np

    shares = tables.reshape(len(tables), labels, labels)
    shares = shares / shares.sum(axis=(1, 2), keepdims=True)
    observed = np.trace(shares, axis1=1, axis2=2)
    chance = (shares.sum(axis=1) * shares.sum(axis=2)).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(chance < 1 - 1e-12, (observed - chance) / (1 - chance), np.nan), observed
