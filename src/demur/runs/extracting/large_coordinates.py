"""Warns of directions that are mostly a few huge coordinates: massive activations, which are no feature of the text.

In some families (Gemma 3) a few coordinates of the stream are hundreds of times as large as the others, and differ between any
two sets of texts. A difference of means then mostly consists of them, and an edit along it does nothing or breaks the model.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy

from demur.analysis.manifest import DirectionFacts
from demur.directions.stored_vectors import stored_vector
from demur.runs.database.damage import FILE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from demur.runs.store import Store

COUNT = 3
MOST = 0.5
"""A direction is named if its three largest coordinates hold more than this share of its squared length."""


def largest_share(vector: "NDArray[numpy.float64]") -> float:
    """The share of the squared length of a vector, (d_model,), that its three largest coordinates hold."""
    squares = numpy.sort(vector.astype(numpy.float64) ** 2)
    return float(squares[-COUNT:].sum() / squares.sum())


def large_coordinates(store: "Store", directions: Sequence[DirectionFacts]) -> list[str]:
    """One warning for the directions of a run of which a few coordinates hold most.

    Args:
        store: the run.
        directions: its directions; null directions are left out.
    """
    shares = {}
    for each in directions:
        content = None if each.control or each.resample_of is not None else store.direction_file(each.name)
        if content is not None:
            share = largest_share(stored_vector(content, f"direction {each.name} in {store.folder / FILE}"))
            if share > MOST:
                shares[each.name] = share
    if not shares:
        return []
    named = ", ".join(f"{100 * share:.0f} % of {name}" for name, share in shares.items())
    return [
        f"Three coordinates hold {named}. Such massive activations differ between any two sets of texts; try the estimator "
        "whitened, or another layer."
    ]
