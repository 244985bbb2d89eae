"""`logistic`: the weights of a logistic regression that tells harmful from harmless activations."""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from demur.core.errors import WorkError
from demur.directions.estimators.estimator import Side
from demur.directions.estimators.gap_length import with_gap_length
from demur.directions.estimators.layer_rows import layer_rows

PENALTY = 0.01
"""The weight of half the squared length of w, where the mean loss of an instruction has weight 1.

The activations are scaled so that their mean squared distance from their mean is 1, so the penalty means the same at every layer.
"""

_MOST_STEPS = 200
_FLAT = 1e-10
"""A gradient that is shorter than this counts as zero."""
_ROUNDING = 1e-12


class LogisticProbe:
    """The w that minimises mean(log(1 + exp(-y (w.x + b)))) + PENALTY / 2 |w|^2, with y = 1 for harmful and -1 for harmless x.

    The constant b has no penalty. Newton's method finds the one minimum, in float64 and without chance.
    """

    name: ClassVar[str] = "logistic"
    needs: ClassVar[Literal["means", "activations"]] = "activations"

    def fit(self, harmful: Side, harmless: Side) -> Float[Tensor, "layer d_model"]:
        """One vector for each layer, as long as the distance of the two means along it, float64.

        It is zero if all activations are equal.

        Raises:
            WorkError: if the minimum was not found.
        """
        labels = torch.cat([torch.ones(harmful.count), -torch.ones(harmless.count)]).double()
        vectors = []
        for layer in range(len(harmful.mean)):
            rows = torch.cat([layer_rows(side, layer) for side in (harmful, harmless)])
            vectors.append(self._weights(rows - rows.mean(0), labels))
        return with_gap_length(torch.stack(vectors), harmful, harmless)

    def _weights(self, centred: Float[Tensor, "row d_model"], labels: Float[Tensor, " row"]) -> Float[Tensor, " d_model"]:
        """The weights for one layer, up to their length.

        The best w is a sum of rows. So it is sought in an orthonormal basis of the rows, which has fewer dimensions.
        """
        scale = centred.square().sum(-1).mean().sqrt()
        if not scale > 0:
            return torch.zeros_like(centred[0])
        basis = torch.linalg.svd(centred / scale, full_matrices=False).Vh
        weights: Tensor = basis.T @ minimum(centred / scale @ basis.T, labels)[:-1]
        return weights


def minimum(rows: Float[Tensor, "row dim"], labels: Float[Tensor, " row"]) -> Float[Tensor, " dim_and_constant"]:
    """Find weights and constant of the penalised logistic regression by Newton's method with a line search.

    Args:
        rows: what the labels are predicted from, float64.
        labels: 1 or -1 for each row.

    Returns:
        The weights, and the constant as the last entry.

    Raises:
        WorkError: if the gradient is not zero after many steps.
    """
    design = torch.cat([rows, torch.ones(len(rows), 1, dtype=rows.dtype)], dim=1)
    penalty = torch.full((design.shape[1],), PENALTY, dtype=rows.dtype)
    penalty[-1] = 0.0

    def loss(weights: Tensor) -> float:
        margins = labels * (design @ weights)
        return float(torch.nn.functional.softplus(-margins).mean() + (penalty * weights**2).sum() / 2)

    weights = torch.zeros(design.shape[1], dtype=rows.dtype)
    for _ in range(_MOST_STEPS):
        missed = torch.sigmoid(-labels * (design @ weights))
        gradient = penalty * weights - design.T @ (labels * missed) / len(rows)
        if gradient.norm() < _FLAT:
            return weights
        curvature = (design.T * (missed * (1 - missed))) @ design / len(rows) + penalty.diag()
        step, share, before = torch.linalg.solve(curvature, gradient), 1.0, loss(weights)
        # Next to the minimum, two losses differ by less than their rounding error.
        while loss(weights - share * step) > before + _ROUNDING:
            share /= 2
        weights = weights - share * step
    raise WorkError(f"the logistic regression found no minimum in {_MOST_STEPS} steps; use another estimator or another layer")
