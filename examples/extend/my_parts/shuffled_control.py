"""A control: the coordinates of a direction in another order."""

import random
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    from demur.directions.direction import Direction
    from demur.directions.estimators.estimator import Side


class Shuffled:
    """Shuffles the coordinates of the direction that it is a control for. Their distribution and the length stay the same."""

    name: ClassVar[str] = "shuffled"
    needs: ClassVar[Literal["direction", "activations"]] = "direction"
    null_of: ClassVar[str] = "any direction with these coordinates"

    def make(
        self,
        beside: "Direction",
        *,
        name: str,
        seed: int,
        harmful: "Side | None" = None,
        harmless: "Side | None" = None,
    ) -> "Direction":
        """The same seed and name give the same order on every machine."""
        from dataclasses import replace

        order = list(range(len(beside.vector)))
        random.Random(f"{seed}:{name}").shuffle(order)
        return replace(beside, name=name, vector=beside.vector[order])
