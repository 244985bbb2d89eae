"""`random`: a direction drawn uniformly from the sphere, of the norm of the direction that it stands beside."""

import hashlib
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    from demur.directions.direction import Direction
    from demur.directions.estimators.estimator import Side


class RandomDirections:
    """The control `random`. It takes layer, site, position and raw norm from the direction it stands beside, and nothing else."""

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
    """A direction drawn uniformly from the sphere, of the same norm and read at the same place as `like`."""
    import torch

    from demur.directions.direction import Direction, from_raw

    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    vector = torch.randn(like.vector.shape[0], generator=generator, dtype=torch.float64)
    facts = {"method": "random, same norm", "control of": like.name, "seed": seed}
    drawn = from_raw(vector, name=name, layer=like.layer, position=like.position, site=like.site, provenance=facts)
    return Direction(name, drawn.vector, like.raw_norm, like.layer, like.position, like.site, facts)
