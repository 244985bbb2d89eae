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


def separation(harmful: Float[Tensor, " row"], harmless: Float[Tensor, " other"]) -> Separation:
    """How well one number a row tells the two sides apart; each side needs at least two rows."""
    high, low = harmful.double(), harmless.double()
    wins = (high[:, None] > low[None]).double() + 0.5 * (high[:, None] == low[None]).double()
    pooled = torch.sqrt((high.var() * (len(high) - 1) + low.var() * (len(low) - 1)) / (len(high) + len(low) - 2))
    difference = float(high.mean() - low.mean())
    gap = difference / float(pooled) if pooled > 0 else (float("inf") if difference else 0.0)
    return Separation(float(wins.mean()), gap)
