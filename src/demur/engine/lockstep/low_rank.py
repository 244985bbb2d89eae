"""The difference of two checkpoints' weights cut down to a rank: the best approximation of each matrix, and a random one.

The best part of rank r of a matrix is its projection onto its first r singular vectors (Eckart and Young 1936).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from demur.core.errors import InputError
from demur.engine.lockstep.matched_pair import MatchedPair
from demur.engine.lockstep.weight_swap import Difference, names_in, weight_places


class LowRankParts:
    """The leading singular vectors and values of differences of weights, by the weights' names.

    They are those of both directions of a pair, because the difference changes only its sign. A tensor of more than two
    dimensions, as of several experts, is several matrices.
    """

    def __init__(self, pair: MatchedPair, most: int) -> None:
        """Nothing is read yet.

        Args:
            pair: the checkpoints.
            most: the highest rank that will be asked for. So many vectors of each matrix are kept.
        """
        places = weight_places(pair.target)
        inside = names_in(places, ("attention", "mlp"), range(pair.target.n_layers))
        self.names = tuple(sorted(name for name in inside if pair.target.model.get_parameter(name).ndim > 1))
        """The matrices of all attentions and MLPs."""
        self._most = most
        self._vectors: dict[str, Tensor] = {}
        self._values: dict[str, Tensor] = {}

    def read(self, name: str, difference: Float[Tensor, "*matrix out in"]) -> Float[Tensor, "*matrix out in"]:
        """Keep what is needed of one difference.

        The vectors are eigenvectors of the smaller of both products of the matrix with itself, in float64. On a CPU this takes
        a third of the time of a singular value decomposition in float32.

        Args:
            name: the name of the weight.
            difference: the source's weight minus the target's.

        Returns:
            The part of full rank, which is the difference up to rounding.
        """
        wide = _wide(difference.double())
        squares, vectors = torch.linalg.eigh(wide @ wide.mT)
        # eigh gives the smallest first.
        kept = vectors[..., -self._most :].flip(-1)
        self._vectors[name] = kept.to(torch.float32)
        self._values[name] = squares[..., -self._most :].flip(-1).clamp(min=0).sqrt()
        return _like(vectors @ (vectors.mT @ wide), difference)

    def best(self, rank: int) -> Difference:
        """What cuts each difference down to its best part of a rank.

        Args:
            rank: the rank. A matrix with fewer rows or columns is taken whole.

        Raises:
            InputError: for a rank above the one that was stated.
        """
        self._check(rank)

        def cut(name: str, difference: Tensor) -> Tensor:
            wide = _wide(difference)
            vectors = self._vectors[name][..., :rank].to(wide.device, wide.dtype)
            return _like(vectors @ (vectors.mT @ wide), difference)

        return cut

    def random(self, rank: int, seed: int) -> Difference:
        """The null of `best`: random matrices of this rank with the same singular values, and so with the same norms.

        Args:
            rank: the rank.
            seed: the seed of the singular vectors.

        Raises:
            InputError: for a rank above the one that was stated.
        """
        self._check(rank)
        numbers = {name: number for number, name in enumerate(self.names)}

        def draw(name: str, difference: Tensor) -> Tensor:
            values = self._values[name][..., :rank].to(difference.device, difference.dtype)
            generator = torch.Generator().manual_seed(seed + numbers[name])
            left, right = (
                torch.linalg.qr(torch.randn(*difference.shape[:-2], size, values.shape[-1], generator=generator)).Q
                for size in difference.shape[-2:]
            )
            drawn: Tensor = (left.to(values) * values[..., None, :]) @ right.to(values).mT
            return drawn

        return draw

    def _check(self, rank: int) -> None:
        if not 1 <= rank <= self._most:
            raise InputError(f"a part of rank {rank} was asked for, but ranks from 1 to {self._most} were stated")


def _wide(matrix: Tensor) -> Tensor:
    """A matrix with no more rows than columns: itself, or its transpose."""
    return matrix if matrix.shape[-2] <= matrix.shape[-1] else matrix.mT


def _like(wide: Tensor, matrix: Tensor) -> Tensor:
    """The opposite of `_wide`."""
    return wide if matrix.shape[-2] <= matrix.shape[-1] else wide.mT
