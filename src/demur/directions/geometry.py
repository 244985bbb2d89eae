"""How activations lie along a direction: projections, and how well these tell harmful from harmless instructions.

In float64. A separation says where two kinds of instructions differ, not that a model acts on it.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Separation:
    """`auroc`: the chance that a harmful instruction lies further along than a harmless one, ties half. `gap`: the means'
    distance in pooled standard deviations (Cohen's d); infinite where neither side varies.
    """

    auroc: float
    gap: float


def projections(activations: Float[Tensor, "*rows d_model"], vector: Float[Tensor, " d_model"]) -> Float[Tensor, "*rows"]:
    """Length of each activation along a unit vector, float64."""
    return activations.double() @ vector.double()


def auroc(harmful: Float[Tensor, "*many row"], harmless: Float[Tensor, "*many other"]) -> Float[Tensor, "*many"]:
    """The chance that one of the first lies above one of the second, ties half: Mann and Whitney (1947). By sorting, so that many
    instructions take little memory. Values must be numbers.
    """
    high, low = harmful.double().contiguous(), harmless.double().sort(dim=-1).values.contiguous()
    below = torch.searchsorted(low, high) + torch.searchsorted(low, high, right=True)
    return below.double().mean(-1) / (2 * low.shape[-1])


def separation(harmful: Float[Tensor, " row"], harmless: Float[Tensor, " other"]) -> Separation:
    """How well one number a row tells the two sides apart; each side needs at least two rows."""
    high, low = harmful.double(), harmless.double()
    pooled = torch.sqrt((high.var() * (len(high) - 1) + low.var() * (len(low) - 1)) / (len(high) + len(low) - 2))
    difference = float(high.mean() - low.mean())
    gap = difference / float(pooled) if pooled > 0 else (float("inf") if difference else 0.0)
    return Separation(float(auroc(high, low)), gap)
