"""What the shipped controls share: random numbers by seed and name, contrasts of two groups, and the norm of another direction.

Torch is imported inside the functions, because a study that names a control imports this module.
"""

import hashlib
from typing import TYPE_CHECKING

from demur.core.errors import WorkError

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from demur.directions.direction import Direction
    from demur.directions.estimators.estimator import Side
    from demur.inputs.training_texts import TrainingTexts


def generator_of(seed: int, name: str) -> "Generator":
    """Random numbers that are the same for the same seed and name on every machine."""
    import torch

    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def activations_of(side: "Side | None") -> "Tensor":
    """The activations of a side at its only layer, (instruction, d_model), float64. `control_direction` has checked the side."""
    assert side is not None
    assert side.activations is not None
    return side.activations[:, 0].double()


def texts_of(side: "Side | None") -> "TrainingTexts":
    """The instructions of a side. `control_direction` has checked that a control which reads them gets them."""
    assert side is not None
    assert side.texts is not None
    return side.texts


def group_contrast(rows: "Tensor", members: "Tensor") -> "Tensor":
    """The mean of some rows minus the mean of the other rows.

    Args:
        rows: activations, (instruction, d_model), float64.
        members: indices of the rows of the first group.

    Returns:
        The difference, (d_model,), float64.
    """
    import torch

    inside = torch.zeros(len(rows), dtype=torch.bool)
    inside[members] = True
    return rows[inside].mean(0) - rows[~inside].mean(0)


def scaled_like(raw: "Tensor", beside: "Direction", *, name: str, method: str, **facts: object) -> "Direction":
    """A direction of any length, scaled to the raw norm of the direction that it is a control for.

    Args:
        raw: the vector, (d_model,).
        beside: the direction whose place, norm and provenance it takes. Both come from the same activations.
        name: the name of the new direction.
        method: how it was made.
        **facts: further facts for its provenance.

    Raises:
        WorkError: if the vector is zero.
    """
    from demur.directions.direction import from_raw

    length = float(raw.norm())
    if not length > 0:
        raise WorkError(
            f"the control {name!r} is zero, because the activations it compares are all the same; use other instructions"
        )
    return from_raw(
        raw / length * beside.raw_norm,
        name=name,
        layer=beside.layer,
        position=beside.position,
        site=beside.site,
        provenance=beside.provenance.replaced(method=f"{method}, same norm", **facts),
    )
