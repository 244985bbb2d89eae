"""Cosines between stored directions, without torch, so that a report need not wait for its import."""

from collections.abc import Sequence
from typing import Any

import numpy
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from demur.core.errors import InputError


def stored_vector(content: bytes, where: str) -> NDArray[numpy.float64]:
    """The vector of a direction in demur's own format.

    Args:
        content: the bytes of its file.
        where: their name in error messages.

    Returns:
        The unit vector, (d_model,), float64.

    Raises:
        InputError: if they hold no unit vector in float32.
    """
    try:
        tensors: dict[str, NDArray[Any]] = load(content)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:  # numpy has no bfloat16 and no float8
        raise InputError(f"{where!r} is not a safetensors file of float32 numbers: {error}; make the direction again") from error
    vector = tensors.get("direction")
    if vector is None or vector.ndim != 1 or vector.dtype != numpy.float32:
        found = "no tensor 'direction'" if vector is None else f"a tensor of {vector.dtype} with the shape {vector.shape}"
        raise InputError(f"{where!r} holds {found}; expected one float32 vector (d_model,), so make the direction again")
    exact: NDArray[numpy.float64] = vector.astype(numpy.float64)
    if not abs(float(numpy.linalg.norm(exact)) - 1) <= 1e-4:
        raise InputError(f"{where!r} holds a vector whose length is not one; make the direction again")
    return exact


def cosine_matrix(vectors: Sequence[NDArray[numpy.float64]]) -> list[list[float]]:
    """Pairwise cosine similarities.

    Args:
        vectors: vectors of one width.

    Returns:
        The cosine of each pair; an empty list for no vectors.

    Raises:
        InputError: for vectors of different widths.
    """
    if not vectors:
        return []
    widths = {len(vector) for vector in vectors}
    if len(widths) != 1:
        raise InputError(f"directions of widths {sorted(widths)} cannot be compared; give directions of one width")
    stacked = numpy.stack(vectors)
    stacked /= numpy.linalg.norm(stacked, axis=-1, keepdims=True)
    matrix: list[list[float]] = (stacked @ stacked.T).tolist()
    return matrix
