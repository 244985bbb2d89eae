"""`shuffled-labels`: the difference of means after the labels harmful and harmless were shuffled."""

from typing import TYPE_CHECKING, ClassVar, Literal

from demur.directions.controls.seeded_draws import activations_of, generator_of, group_contrast, scaled_like

if TYPE_CHECKING:
    from demur.directions.direction import Direction
    from demur.directions.estimators.estimator import Side


class ShuffledLabels:
    """The control `shuffled-labels`. As many instructions as before are called harmful, but which ones is random.

    By chance, a shuffled group may hold more of the harmful instructions. The direction then resembles the real one, and its
    cosine with it says how much.
    """

    name: ClassVar[str] = "shuffled-labels"
    needs: ClassVar[Literal["direction", "activations"]] = "activations"
    null_of: ClassVar[str] = "the difference of two groups of these instructions whose labels mean nothing"

    def make(
        self,
        beside: "Direction",
        *,
        name: str,
        seed: int,
        harmful: "Side | None" = None,
        harmless: "Side | None" = None,
    ) -> "Direction":
        """Shuffle the labels and take the difference of means."""
        import torch

        high, low = activations_of(harmful), activations_of(harmless)
        order = torch.randperm(len(high) + len(low), generator=generator_of(seed, name))
        raw = group_contrast(torch.cat([high, low]), order[: len(high)])
        return scaled_like(raw, beside, name=name, method="difference of means, labels shuffled")
