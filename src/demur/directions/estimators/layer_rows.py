"""The activations of one layer in float64, for estimators that need whole activations."""

import torch
from jaxtyping import Float
from torch import Tensor

from demur.directions.estimators.estimator import Side


def layer_rows(side: Side, layer: int) -> Float[Tensor, "instruction d_model"]:
    """The activations of a side at one layer, float64.

    Args:
        side: activations of the instructions of one label.
        layer: the place of the layer among those of the side.
    """
    assert side.activations is not None, "an estimator gets what its `needs` asks for"
    return side.activations[:, layer].double()


def class_centred(harmful: Side, harmless: Side, layer: int) -> Float[Tensor, "instruction d_model"]:
    """The activations of both sides at one layer, each without the mean of its side, float64."""
    sides = [layer_rows(side, layer) for side in (harmful, harmless)]
    return torch.cat([rows - rows.mean(0) for rows in sides])
