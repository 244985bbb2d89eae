"""What is measured of an arm at every layer: its own direction, and held-out instructions along it, as it is stored.

What is kept is two means a layer and one number an instruction and layer; `layer_separation.py` makes it. Reading it back
needs no model, and imports nothing that does.
"""

from dataclasses import dataclass, fields

from jaxtyping import Float
from safetensors.torch import load, save
from torch import Tensor

DRAWS, SEED = 100, 0
"""Random directions a layer, the same in every arm, and their seed."""


@dataclass(frozen=True, eq=False)
class Layerwise:
    """One arm at every layer, float32.

    `difference`: mean harmful minus mean harmless training activation. `norms`: mean length of the harmful and of the harmless
    training activations. `harmful`, `harmless`: where each held-out instruction lies along the layer's difference, 0 at the mean
    of the harmless and 1 at the mean of the harmful training instructions; not a number where these means are the same, as at the
    first layer behind a template. `null`: the held-out AUROC of each random direction.
    """

    difference: Float[Tensor, "layer d_model"]
    norms: Float[Tensor, "side layer"]
    harmful: Float[Tensor, "instruction layer"]
    harmless: Float[Tensor, "other layer"]
    null: Float[Tensor, "draw layer"]

    def to_bytes(self) -> bytes:
        """The same measurement gives the same bytes."""
        return bytes(save({each.name: getattr(self, each.name).contiguous() for each in fields(self)}))

    @classmethod
    def from_bytes(cls, content: bytes) -> "Layerwise":
        """What `to_bytes` wrote."""
        return cls(**load(content))
