"""A direction estimator: the difference of medians, which a few extreme activations hardly change."""

from typing import ClassVar, Literal

from torch import Tensor

from demur.directions.estimators.estimator import Side


class MedianDifference:
    """The median of the harmful activations minus that of the harmless ones, coordinate by coordinate."""

    name: ClassVar[str] = "median"
    needs: ClassVar[Literal["means", "activations"]] = "activations"

    def fit(self, harmful: Side, harmless: Side) -> Tensor:
        """One vector a layer, (layer, d_model) in float64."""
        high, low = (side.activations.double().median(dim=0).values for side in (harmful, harmless))
        return high - low
