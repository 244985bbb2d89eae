"""Projections of activations on a direction, and the area under the ROC curve of many of them at once. Computed in float64."""

import torch
from jaxtyping import Float
from torch import Tensor


def projections(activations: Float[Tensor, "*rows d_model"], vector: Float[Tensor, " d_model"]) -> Float[Tensor, "*rows"]:
    """The component of each activation along a unit vector, float64."""
    return activations.double() @ vector.double()


def auroc(harmful: Float[Tensor, "*many row"], harmless: Float[Tensor, "*many other"]) -> Float[Tensor, "*many"]:
    """The chance that a harmful value is larger than a harmless one; ties count half (Mann and Whitney 1947).

    Args:
        harmful: values of harmful instructions, none of them NaN.
        harmless: values of harmless instructions, none of them NaN.

    Returns:
        One area for each leading index, float64. Values are sorted instead of compared in pairs, to save memory.
    """
    high, low = harmful.double().contiguous(), harmless.double().sort(dim=-1).values.contiguous()
    below = torch.searchsorted(low, high) + torch.searchsorted(low, high, right=True)
    return below.double().mean(-1) / (2 * low.shape[-1])
