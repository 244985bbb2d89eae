"""What a direction estimator is: from activations of harmful and harmless training instructions to one direction a layer."""

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from demur.core.registry import registry


@dataclass(frozen=True, eq=False)
class Side:
    """The training activations of one instruction set at some layers.

    Attributes:
        mean: mean activation, (layer, d_model), float64.
        mean_norm: mean length of the activations, (layer,), float64.
        count: number of instructions.
        activations: every activation, (instruction, layer, d_model), float32; None where the estimator needs means only.
    """

    mean: Float[Tensor, "layer d_model"]
    mean_norm: Float[Tensor, " layer"]
    count: int
    activations: Float[Tensor, "instruction layer d_model"] | None = None


@runtime_checkable
class Estimator(Protocol):
    """A way to find the direction that tells harmful from harmless instructions.

    Attributes:
        name: how studies call it; stored with each direction as its method.
        needs: `means`, which take little memory, or whole `activations`.
    """

    name: ClassVar[str]
    needs: ClassVar[Literal["means", "activations"]]

    def fit(self, harmful: Side, harmless: Side) -> Float[Tensor, "layer d_model"]:
        """One vector a layer, float64, pointing from harmless to harmful. Its length is the direction's raw norm.

        A row of zeros says that the layer has no direction.
        """
        ...


def estimator(name: str) -> Estimator:
    """The estimator of a name, or of `module:Class`.

    Raises:
        InputError: for an unknown name, with the nearest known one.
    """
    found: Estimator = registry("estimator").get(name)
    return found
