"""The result of `by-layer` for one arm, as arrays: its direction at every layer, and the projections of instructions on it.

Two means a layer and one number an instruction and layer. `by_layer_projections.py` makes it. Reading it needs
neither a model nor torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy
from jaxtyping import Float
from numpy import ndarray
from numpy.typing import NDArray

DRAWS, SEED = 100, 0
"""Number of random directions a layer, the same ones in every arm, and their seed."""


@dataclass(frozen=True, eq=False)
class Layerwise:
    """One arm at every layer, float32.

    Attributes:
        difference: mean harmful minus mean harmless training activation.
        norms: mean length of the harmful and of the harmless training activations.
        harmful: where each harmful held-out instruction lies along the layer's difference: 0 at the mean of the harmless and 1 at
            the mean of the harmful training instructions. Not a number where these means are the same, as at the first layer
            after a template.
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
