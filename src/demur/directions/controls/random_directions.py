"""`random`: a direction drawn uniformly from the sphere, with the norm of the direction that it is a control for."""

from typing import TYPE_CHECKING, ClassVar, Literal

from demur.directions.controls.seeded_draws import generator_of

if TYPE_CHECKING:
    from demur.directions.direction import Direction
    from demur.directions.estimators.estimator import Side


class RandomDirections:
    """The control `random`. It takes layer, site, position and raw norm from another direction, and nothing else."""

    name: ClassVar[str] = "random"
    needs: ClassVar[Literal["direction", "activations"]] = "direction"
    null_of: ClassVar[str] = "any direction of this norm"

    def make(
        self,
        beside: "Direction",
        *,
        name: str,
        seed: int,
        harmful: "Side | None" = None,  # noqa: ARG002
        harmless: "Side | None" = None,  # noqa: ARG002
    ) -> "Direction":
        """A random direction; the same seed and name give the same one on every machine."""
        return random_direction(beside, name=name, seed=seed)


def random_direction(like: "Direction", *, name: str, seed: int = 0) -> "Direction":
    """Draw a direction uniformly from the sphere, as a control for another one.

    Args:
        like: the direction that it is a control for.
        name: the name of the new direction; another name gives another direction.
        seed: another seed gives another direction.

    Returns:
        A direction with the layer, site, position and raw norm of `like`. The same seed and name give the same direction on
        every machine.

    Example:
        >>> import torch, demur
        >>> direction = demur.from_raw(torch.ones(64), name="own", layer=3)
        >>> control = demur.random_direction(direction, name="random-1")
        >>> control.layer, control.raw_norm, control.provenance.control_of
        (3, 8.0, 'own')
    """
    import torch

    from demur.directions.direction import Direction
    from demur.directions.provenance import Provenance

    vector = torch.randn(like.vector.shape[0], generator=generator_of(seed, name), dtype=torch.float64)
    unit = (vector / vector.norm()).float()
    facts = Provenance(method="random, same norm", control_of=like.name, seed=seed)
    return Direction(name, unit, like.raw_norm, like.layer, like.position, like.site, facts)
