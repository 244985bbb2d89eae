"""The result of `by-layer` for one arm, as arrays: its direction at every layer, and the projections of instructions on it.

`by_layer_projections.py` makes the arrays. Reading them needs neither a model nor torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy
from jaxtyping import Float
from numpy import ndarray
from numpy.typing import NDArray

DRAWS, SEED = 1000, 0
"""The number of random directions, and their seed. Every layer of every arm has the same ones. Records of earlier
versions have 100, with which the edges of a band moved by up to 0.065 between seeds."""


@dataclass(frozen=True, eq=False)
class Layerwise:
    """The arrays of one arm for every layer, float32.

    Attributes:
        difference: mean harmful minus mean harmless training activation.
        norms: mean length of the harmful and of the harmless training activations.
        harmful: where each harmful held-out instruction lies along the layer's difference: 0 is the mean of the harmless training
            instructions, 1 that of the harmful ones. NaN if these means are the same, as they are for a template token at the
            input of the first layer.
        harmless: the same for the harmless held-out instructions.
        null: the held-out AUROC of each random direction.
    """

    difference: Float[ndarray, "layer d_model"]
    norms: Float[ndarray, "side layer"]
    harmful: Float[ndarray, "instruction layer"]
    harmless: Float[ndarray, "other layer"]
    null: Float[ndarray, "draw layer"]

    def arrays(self) -> dict[str, NDArray[numpy.floating[Any]]]:
        """The arrays by name, as they are stored."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[numpy.floating[Any]]]) -> "Layerwise":
        """Make the value from the arrays that `arrays` gave.

        Args:
            arrays: the arrays by name.
        """
        return cls(**arrays)
