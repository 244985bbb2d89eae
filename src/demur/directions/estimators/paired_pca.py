"""`paired-pca`: the first principal component of the differences between paired harmful and harmless activations."""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from demur.core.errors import InputError
from demur.directions.estimators.estimator import Side
from demur.directions.estimators.gap_length import with_gap_length
from demur.directions.estimators.layer_rows import layer_rows


class PairedPca:
    """The direction along which paired differences have the greatest mean square.

    The first harmful instruction is paired with the first harmless one, and so on. The differences are not centred, because their
    mean is part of what is looked for. Linear artificial tomography (Zou et al. 2023, arXiv 2310.01405, section 3.1) gives every
    second difference the opposite sign, which has the same effect. Sign and length are those of the difference of means along the
    direction.
    """

    name: ClassVar[str] = "paired-pca"
    needs: ClassVar[Literal["means", "activations"]] = "activations"

    def fit(self, harmful: Side, harmless: Side) -> Float[Tensor, "layer d_model"]:
        """The first right singular vector of the differences, as long as the distance of the two means along it, float64.

        Raises:
            InputError: if there are not as many harmful as harmless instructions.
        """
        if harmful.count != harmless.count:
            raise InputError(
                f"the estimator {self.name!r} pairs instructions, but there are {harmful.count} harmful and {harmless.count} "
                "harmless ones; give as many of both"
            )
        vectors = []
        for layer in range(len(harmful.mean)):
            differences = layer_rows(harmful, layer) - layer_rows(harmless, layer)
            vectors.append(torch.linalg.svd(differences, full_matrices=False).Vh[0])
        return with_gap_length(torch.stack(vectors), harmful, harmless)
