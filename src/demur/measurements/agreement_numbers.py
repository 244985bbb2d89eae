"""Is the cosine between two directions more than noise? Computed from the training activations of both arms at one layer.

Both arms read the same instructions. So their directions share what this sample of instructions happens to have, and two arms
agree even on directions that mean nothing. Three numbers belong beside the cosine. The corrected cosine leaves out the products
of an instruction with itself, through which the shared noise enters (a U-statistic; Hoeffding 1948). The null is the cosine of
both arms' directions for shuffled labels, with the same shuffle in both arms. The ceiling is the cosine of two directions of one
arm, each from one half of the instructions. Pure functions without torch.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy
from jaxtyping import Float
from numpy import ndarray
from numpy.typing import NDArray

Array = NDArray[numpy.floating[Any]]


@dataclass(frozen=True, eq=False)
class Agreement:
    """The numbers of one pair of arms at one or more layers, float64; NaN where a number is not defined.

    Attributes:
        cosine: between the two differences of means.
        corrected: the same without the noise that both arms share. It is not defined where the noise hides a direction.
        corrected_se: its standard error over instructions, by the jackknife (Arvesen 1969).
        null: the cosine of each draw of shuffled labels.
        halves: for each arm, the mean cosine between the directions of two halves of its instructions.
    """

    cosine: Float[ndarray, " layer"]
    corrected: Float[ndarray, " layer"]
    corrected_se: Float[ndarray, " layer"]
    null: Float[ndarray, "draw layer"]
    halves: Float[ndarray, "arm layer"]

    def arrays(self) -> dict[str, Array]:
        """The arrays by name, as they are stored."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


def agreement(
    first: Float[ndarray, "instruction layer d_model"],
    second: Float[ndarray, "instruction layer d_model"],
    harmful: int,
    *,
    draws: int,
    splits: int,
    seed: int = 0,
) -> Agreement:
    """Compare the directions of two arms at every layer.

    Args:
        first: activations of one arm, those of the harmful instructions first.
        second: activations of the other arm, in the same order.
        harmful: the number of harmful instructions. At least four are needed on each side.
        draws: the number of shuffles of the labels.
        splits: the number of times that the instructions are split in halves.
        seed: the seed of shuffles and splits; they are the same for every pair of arms and every layer.

    Returns:
        The numbers of each layer.
    """
    count = first.shape[0]
    plain = _weights(numpy.arange(count)[None] < harmful)
    generator = numpy.random.default_rng(seed)
    labels = numpy.arange(count) < harmful
    shuffled = _weights(numpy.array([generator.permutation(labels) for _ in range(draws)]))
    one, other = _halves(count, harmful, splits, generator)
    layers = [
        _of_layer(
            first[:, layer].astype(numpy.float64), second[:, layer].astype(numpy.float64), harmful, plain, shuffled, one, other
        )
        for layer in range(first.shape[1])
    ]
    cosines, corrected, errors, null, halves = zip(*layers, strict=True)
    return Agreement(
        numpy.array(cosines), numpy.array(corrected), numpy.array(errors), numpy.array(null).T, numpy.array(halves).T
    )


def _of_layer(
    first: Array, second: Array, harmful: int, plain: Array, shuffled: Array, one: Array, other: Array
) -> tuple[float, float, float, Array, tuple[float, float]]:
    # Every direction is a weighted sum of activations, so its products are in these three matrices.
    both, left, right = first @ second.T, first @ first.T, second @ second.T
    corrected, error = _corrected(both, left, right, harmful)
    return (
        float(_cosines(plain, plain, both, left, right)[0]),
        corrected,
        error,
        _cosines(shuffled, shuffled, both, left, right),
        (float(_cosines(one, other, left, left, left).mean()), float(_cosines(one, other, right, right, right).mean())),
    )


def _weights(labels: NDArray[numpy.bool_]) -> Array:
    """The weight of each instruction in a difference of means, one row for each labelling. The weights of a row sum up to 0."""
    high = labels.sum(1, keepdims=True)
    found: Array = numpy.where(labels, 1 / high, -1 / (labels.shape[1] - high))
    return found


def _halves(count: int, harmful: int, splits: int, generator: numpy.random.Generator) -> tuple[Array, Array]:
    """The weights of two differences of means, each over one half of the harmful and of the harmless instructions."""
    one, other = numpy.zeros((splits, count)), numpy.zeros((splits, count))
    for split in range(splits):
        for begin, end, sign in ((0, harmful, 1.0), (harmful, count, -1.0)):
            order = begin + generator.permutation(end - begin)
            for weights, part in zip((one, other), numpy.array_split(order, 2), strict=True):
                weights[split, part] = sign / len(part)
    return one, other


def _cosines(one: Array, other: Array, both: Array, left: Array, right: Array) -> Array:
    """The cosine of each pair of weighted sums, row by row; NaN if one of them is zero."""
    dots = ((one @ both) * other).sum(1)
    lengths = ((one @ left) * one).sum(1) * ((other @ right) * other).sum(1)
    with numpy.errstate(invalid="ignore", divide="ignore"):
        found: Array = numpy.where(lengths > 0, dots / numpy.sqrt(lengths.clip(min=0)), numpy.nan)
    return found


def _corrected(both: Array, left: Array, right: Array, harmful: int) -> tuple[float, float]:
    """The corrected cosine and its standard error over instructions."""
    products = [_without_shared_noise(matrix, harmful) for matrix in (both, left, right)]
    with numpy.errstate(invalid="ignore", divide="ignore"):
        dots, one, other = products
        # The first entry is that of all instructions, the others leave out one instruction each.
        found = numpy.where((one > 0) & (other > 0), dots / numpy.sqrt((one * other).clip(min=0)), numpy.nan)
    variance = 0.0
    for left_out in (found[1 : 1 + harmful], found[1 + harmful :]):
        variance += (len(left_out) - 1) / len(left_out) * float(((left_out - left_out.mean()) ** 2).sum())
    # Where noise hides a direction, its squared length comes out near zero or below, and the quotient means nothing.
    known = variance < float("inf") and abs(found[0]) <= 1 + 1.96 * variance**0.5
    return (float(found[0]), variance**0.5) if known else (numpy.nan, numpy.nan)


def _without_shared_noise(products: Array, harmful: int) -> Array:
    """Unbiased estimates of the product of two true directions: from all instructions, and without each of them in turn.

    Args:
        products: the product of each activation of one arm with each activation of the other.
        harmful: the number of harmful instructions.
    """
    count = products.shape[0]
    harmless, own = count - harmful, products.diagonal()
    rows_high, rows_low = products[:, :harmful].sum(1), products[:, harmful:].sum(1)
    columns_high, columns_low = products[:harmful].sum(0), products[harmful:].sum(0)
    is_high = numpy.arange(count) < harmful
    # Sums over pairs of different instructions of one side, and over pairs of both sides. The first entry leaves nothing out.
    high = numpy.full(count + 1, rows_high[:harmful].sum() - own[:harmful].sum())
    low = numpy.full(count + 1, rows_low[harmful:].sum() - own[harmful:].sum())
    across = numpy.full(count + 1, rows_low[:harmful].sum() + rows_high[harmful:].sum())
    high[1:] -= numpy.where(is_high, rows_high + columns_high - 2 * own, 0)
    low[1:] -= numpy.where(is_high, 0, rows_low + columns_low - 2 * own)
    across[1:] -= numpy.where(is_high, rows_low + columns_low, rows_high + columns_high)
    n = numpy.concatenate([[harmful], harmful - is_high])
    m = numpy.concatenate([[harmless], harmless - ~is_high])
    found: Array = high / (n * (n - 1)) + low / (m * (m - 1)) - across / (n * m)
    return found
