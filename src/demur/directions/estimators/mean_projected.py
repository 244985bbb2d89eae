"""`mean-projected`: the difference of means without its part along the harmless mean."""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from demur.directions.estimators.estimator import Side

_NOTHING_LEFT = 1e-9
"""A remainder that is shorter than this share of the difference of means is rounding error."""


class MeanProjected:
    """The difference of means d without its part along the harmless mean u: d - (d.u) u / (u.u).

    Ablating it at its layer does not move the harmless mean. Ablating the difference of means moves it, and this can raise
    refusals. Source: projected abliteration (Lai 2025).
    """

    name: ClassVar[str] = "mean-projected"
    needs: ClassVar[Literal["means", "activations"]] = "means"

    def fit(self, harmful: Side, harmless: Side) -> Float[Tensor, "layer d_model"]:
        """The part of the difference of the two means that is orthogonal to the harmless mean, float64.

        It is zero if the harmful mean is a multiple of the harmless mean.
        """
        difference = harmful.mean.double() - harmless.mean.double()
        length = harmless.mean.double().norm(dim=-1, keepdim=True)
        along = harmless.mean.double() / length.where(length > 0, 1.0)
        rest = difference
        for _ in range(2):  # The second time removes the rounding error of the first.
            rest = rest - (rest * along).sum(-1, keepdim=True) * along
        nothing = rest.norm(dim=-1, keepdim=True) <= _NOTHING_LEFT * difference.norm(dim=-1, keepdim=True)
        return torch.where(nothing, 0.0, rest)
