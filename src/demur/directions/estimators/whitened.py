"""`whitened`: the difference of means divided by the covariance within the classes (linear discriminant analysis)."""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from demur.directions.estimators.estimator import Side
from demur.directions.estimators.gap_length import with_gap_length
from demur.directions.estimators.layer_rows import class_centred


class WhitenedDifference:
    """S^-1 (m1 - m0), where m1 and m0 are the two means and S is the shrunk covariance within the classes.

    It is the direction along which the classes overlap least if both have the covariance S (Fisher 1936). S is shrunk to a
    multiple of the identity by as much as Ledoit and Wolf (2004) find best, because there are fewer instructions than dimensions.
    """

    name: ClassVar[str] = "whitened"
    needs: ClassVar[Literal["means", "activations"]] = "activations"

    def fit(self, harmful: Side, harmless: Side) -> Float[Tensor, "layer d_model"]:
        """One vector for each layer, as long as the distance of the two means along it, float64.

        It is zero if the activations of a class do not differ from each other, because then they have no covariance.
        """
        difference = harmful.mean.double() - harmless.mean.double()
        vectors = [solved_by_covariance(class_centred(harmful, harmless, layer), mean) for layer, mean in enumerate(difference)]
        return with_gap_length(torch.stack(vectors), harmful, harmless)


def solved_by_covariance(
    centred: Float[Tensor, "instruction d_model"], vector: Float[Tensor, " d_model"]
) -> Float[Tensor, " d_model"]:
    """The vector that the shrunk covariance of some rows takes to another vector, except for its length.

    Args:
        centred: the rows, each without the mean of its class, float64.
        vector: the other vector, float64.

    Returns:
        A positive multiple of S^-1 times the vector, float64. It is zero if the rows have no spread.
    """
    # Solve (a I + c X^T X) v = vector by Woodbury's identity, with one equation for each row.
    n, gram = len(centred), centred @ centred.T
    shrinkage = ledoit_wolf_shrinkage(centred)
    a, c = shrinkage * float(gram.trace()) / centred.numel(), (1 - shrinkage) / n
    if a <= 0:
        return torch.zeros_like(vector)
    inner = torch.eye(n, dtype=torch.float64) * a + c * gram
    solved: Tensor = vector - c * (centred.T @ torch.linalg.solve(inner, centred @ vector))
    return solved


def ledoit_wolf_shrinkage(centred: Float[Tensor, "row d_model"]) -> float:
    """How far a sample covariance should be moved to a multiple of the identity: 0 not at all, 1 completely.

    Args:
        centred: rows without their mean, float64.

    Returns:
        The share of Ledoit and Wolf 2004 (A well-conditioned estimator for large-dimensional covariance matrices, lemma 3.3). It
        is 0 if the rows have no spread.
    """
    n, width = centred.shape
    gram = centred @ centred.T
    # With S = X^T X / n: the squared distance of S to the identity times its mean variance, and the mean squared distance of the
    # covariance of single rows to S. Both follow from the products of the rows.
    variance = gram.trace() / (n * width)
    squared = gram.square().sum() / n**2
    distance = squared - width * variance**2
    error = (gram.diagonal().square().sum() / n - squared) / n
    return float((error / distance).clamp(0, 1)) if distance > 0 else 0.0
