"""Projections of activations on a direction, and how well these separate harmful from harmless instructions.

Everything is computed in float64. A separation shows that two kinds of instructions differ in this projection, not that the model
uses it.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Separation:
    """How well one number separates two kinds of instructions.

    Attributes:
        auroc: the chance that a harmful instruction has a larger value than a harmless one; ties count half.
        gap: the distance of the means in pooled standard deviations (Cohen's d); infinite where neither side varies.
    """

    auroc: float
    gap: float


def projections(activations: Float[Tensor, "*rows d_model"], vector: Float[Tensor, " d_model"]) -> Float[Tensor, "*rows"]:
    """The component of each activation along a unit vector, float64."""
    return activations.double() @ vector.double()


def auroc(harmful: Float[Tensor, "*many row"], harmless: Float[Tensor, "*many other"]) -> Float[Tensor, "*many"]:
    """The chance that a value of the first is larger than one of the second; ties count half (Mann and Whitney 1947).

    Args:
        harmful: values, none of them NaN.
        harmless: values, none of them NaN.

    Returns:
        One area for each leading index, float64. Values are sorted, not compared in pairs, so that memory stays small.
    """
    high, low = harmful.double().contiguous(), harmless.double().sort(dim=-1).values.contiguous()
    below = torch.searchsorted(low, high) + torch.searchsorted(low, high, right=True)
    return below.double().mean(-1) / (2 * low.shape[-1])


def separation(harmful: Float[Tensor, " row"], harmless: Float[Tensor, " other"]) -> Separation:
    """How well one number for each instruction separates the two sides. Each side needs at least two."""
    high, low = harmful.double(), harmless.double()
    pooled = torch.sqrt((high.var() * (len(high) - 1) + low.var() * (len(low) - 1)) / (len(high) + len(low) - 2))
    difference = float(high.mean() - low.mean())
    gap = difference / float(pooled) if pooled > 0 else (float("inf") if difference else 0.0)
    return Separation(float(auroc(high, low)), gap)
