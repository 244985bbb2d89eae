"""Draws instructions from the lists of Arditi et al. as they do, so that their procedure can be run on exactly the same data.

Source: andyrdt/refusal_direction, pipeline/run_pipeline.py (`load_and_sample_datasets`, and `run_pipeline` for the test set) and
dataset/splits. One generator makes all draws, so their order is part of the result. A list that is missing, or shorter than the
number drawn from it, is an error.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from demur.core.errors import InputError


@dataclass(frozen=True)
class Draw:
    """One draw.

    Attributes:
        n: how many instructions are drawn.
        digest: the digest of the instructions that are drawn from the published list.
    """

    n: int
    digest: str


DRAWS: Mapping[str, Draw] = {
    "harmful_train": Draw(128, "cf837dfec7da06ba"),
    "harmless_train": Draw(128, "5ca55dc00e7afc7f"),
    "harmful_val": Draw(32, "24f8c5eedfb496d3"),
    "harmless_val": Draw(32, "4810456d3d98030c"),
    "harmless_test": Draw(100, "7c5b9234575615b5"),
}
"""The draws in their order, by the name of the list. There is no harmful test draw, because the paper tests on JailbreakBench."""


def arditi_sample(lists: Mapping[str, Sequence[str]], seed: int = 42) -> dict[str, tuple[str, ...]]:
    """Draw from the five lists.

    Args:
        lists: the lists, by the names of `DRAWS`.
        seed: the seed of the generator; 42 in the paper's code.

    Returns:
        The instructions that are drawn, by the names and in the order of `DRAWS`.

    Raises:
        InputError: for a list that is missing or too short.
    """
    generator = random.Random(seed)
    drawn = {}
    for name, draw in DRAWS.items():
        rows = lists.get(name, ())
        if len(rows) < draw.n:
            raise InputError(f"{draw.n} instructions are drawn from {name!r}, which has {len(rows)}; give the published lists")
        drawn[name] = tuple(generator.sample(rows, draw.n))
    return drawn
