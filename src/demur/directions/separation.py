"""How well one number for each instruction separates harmful from harmless instructions. Computed in float64, without torch.

A separation shows that two kinds of instructions differ there, not that the model uses it.
"""

from dataclasses import dataclass
from math import copysign, inf
from typing import Any

import numpy
from numpy.typing import NDArray


@dataclass(frozen=True)
class Separation:
    """How well one number separates two kinds of instructions.

    Attributes:
        auroc: the chance that a harmful instruction has a larger value than a harmless one; ties count half.
        gap: the harmful mean minus the harmless mean, in pooled standard deviations (Cohen's d). If neither side varies, it is
            infinite, or 0 for equal means.
    """

    auroc: float
    gap: float


def separation(harmful: NDArray[numpy.floating[Any]], harmless: NDArray[numpy.floating[Any]]) -> Separation:
    """How well one number for each instruction separates the two sides.

    Args:
        harmful: one value for each harmful instruction, at least two.
        harmless: one value for each harmless instruction, at least two.
    """
    high, low = harmful.astype(numpy.float64), numpy.sort(harmless.astype(numpy.float64))
    degrees = len(high) + len(low) - 2
    pooled = float(numpy.sqrt((high.var(ddof=1) * (len(high) - 1) + low.var(ddof=1) * (len(low) - 1)) / degrees))
    difference = float(high.mean() - low.mean())
    gap = difference / pooled if pooled > 0 else (copysign(inf, difference) if difference else 0.0)
    below = numpy.searchsorted(low, high) + numpy.searchsorted(low, high, side="right")
    return Separation(float(below.mean() / (2 * len(low))), gap)
