"""LEACE written by hand, with whole covariance matrices: it shares no code with the kind of edit."""

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

Matrix = NDArray[numpy.float64]


def shrunk(sample: Matrix, deviations: Matrix) -> Matrix:
    """A covariance, moved to a multiple of the identity by as much as Ledoit and Wolf 2004 find best, from single rows."""
    n, width = deviations.shape
    level = numpy.trace(sample) / width
    target = level * numpy.eye(width)
    distance = ((sample - target) ** 2).sum()
    error = min(sum(((numpy.outer(row, row) - sample) ** 2).sum() for row in deviations) / n**2, distance)
    moved: Matrix = (error * target + (distance - error) * sample) / distance
    return moved


def reader(deviations: Tensor, vector: Tensor) -> Tensor:
    """S^-1 r / (r.S^-1 r) with the whole matrix S, float64."""
    rows, r = deviations.double().numpy(), vector.double().numpy()
    solved = numpy.linalg.inv(shrunk(rows.T @ rows / len(rows), rows)) @ r
    return torch.from_numpy(solved / (solved @ r))


def least_change(covariance: Matrix, cross: Matrix) -> Matrix:
    """Theorem 4.3 of Belrose et al. 2023: the matrix P of the least change with P cross = 0, by whitening."""
    values, vectors = numpy.linalg.eigh(covariance)
    whitening = vectors @ numpy.diag(values**-0.5) @ vectors.T
    seen = (whitening @ cross)[:, None]
    onto = seen @ numpy.linalg.pinv(seen)
    erasing: Matrix = numpy.eye(len(covariance)) - numpy.linalg.inv(whitening) @ onto @ whitening
    return erasing
