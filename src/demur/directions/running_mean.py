"""The mean of many activations, taken batch by batch."""

from jaxtyping import Float
from torch import Tensor


class RunningMean:
    """Mean over rows of activations, summed in float64. Its memory does not grow with the number of rows."""

    def __init__(self) -> None:
        self.count = 0
        self._sum: Tensor | None = None
        self._norms: Tensor | None = None

    def update(self, rows: Float[Tensor, "row layer d_model"]) -> None:
        """Add some rows."""
        total, norms = rows.double().sum(0), rows.double().norm(dim=-1).sum(0)
        self._sum = total if self._sum is None else self._sum + total
        self._norms = norms if self._norms is None else self._norms + norms
        self.count += rows.shape[0]

    @property
    def mean(self) -> Float[Tensor, "layer d_model"]:
        """Mean activation, float64."""
        assert self._sum is not None, "no rows yet"
        return self._sum / self.count

    @property
    def mean_norm(self) -> Float[Tensor, " layer"]:
        """Mean norm of the activations, float64. The unit `residual` is this norm."""
        assert self._norms is not None, "no rows yet"
        return self._norms / self.count
