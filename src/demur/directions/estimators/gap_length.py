"""The sign and length of directions that were found in another way than as a difference of means."""

from jaxtyping import Float
from torch import Tensor

from demur.directions.estimators.estimator import Side


def with_gap_length(vectors: Float[Tensor, "layer d_model"], harmful: Side, harmless: Side) -> Float[Tensor, "layer d_model"]:
    """Give each vector the distance between the two means along it as its length, and let it point from harmless to harmful.

    So the unit `raw` means the same for every estimator: adding the vector once moves the harmless mean to the harmful mean along
    it. The difference of means already has this length.

    Args:
        vectors: one vector for each layer, of any length and sign.
        harmful: activations of the harmful instructions.
        harmless: activations of the harmless instructions.

    Returns:
        The vectors, float64; zeros for a vector of zeros, and for one along which both means are equal.
    """
    exact = vectors.double()
    norm = exact.norm(dim=-1, keepdim=True)
    unit = exact / norm.where(norm > 0, 1.0)
    gap = ((harmful.mean.double() - harmless.mean.double()) * unit).sum(-1, keepdim=True)
    scaled: Tensor = unit * gap
    return scaled
