"""`covariance`: a direction drawn from the spread of the activations inside the two classes."""

from typing import TYPE_CHECKING, ClassVar, Literal

from demur.directions.controls.seeded_draws import activations_of, generator_of, scaled_like

if TYPE_CHECKING:
    from demur.directions.direction import Direction
    from demur.directions.estimators.estimator import Side


class CovarianceDraws:
    """The control `covariance`. It points where activations vary anyway, while a uniformly drawn direction hardly touches them.

    It is a draw from the normal distribution whose covariance is that of the training activations within the classes, pooled over
    harmful and harmless ones. The difference between the classes itself is not part of this covariance.
    """

    name: ClassVar[str] = "covariance"
    needs: ClassVar[Literal["direction", "activations"]] = "activations"
    null_of: ClassVar[str] = "any direction in which activations of one class vary"

    def make(
        self,
        beside: "Direction",
        *,
        name: str,
        seed: int,
        harmful: "Side | None" = None,
        harmless: "Side | None" = None,
    ) -> "Direction":
        """Draw a direction. Each deviation from its class mean gets a random weight, so the covariance is never built."""
        import torch

        rows = [activations_of(side) for side in (harmful, harmless)]
        deviations = torch.cat([side - side.mean(0) for side in rows])
        # The sum of deviations with independent normal weights is normal, and its covariance is proportional to theirs.
        weights = torch.randn(len(deviations), generator=generator_of(seed, name), dtype=torch.float64)
        return scaled_like(weights @ deviations, beside, name=name, method="draw within the classes' covariance")
