"""`difference-of-means`: the mean activation of harmful instructions minus that of harmless ones."""

from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from demur.directions.estimators.estimator import Side


class DifferenceOfMeans:
    """The estimator of Arditi et al. 2024, section 2.3."""

    name: ClassVar[str] = "difference-of-means"
    needs: ClassVar[Literal["means", "activations"]] = "means"

    def fit(self, harmful: Side, harmless: Side) -> Float[Tensor, "layer d_model"]:
        """The difference of the two means, float64. It is zero if all instructions have the same activation."""
        return harmful.mean.double() - harmless.mean.double()
