"""Upstream and late layers of two checkpoints in all four combinations, and whether one needs the other.

A patch of the whole stream after one layer makes a hybrid: the layers up to there are the source's, and the later ones, the final
norm and the unembedding are the target's. So patches in both directions after the same layer give all four combinations. If the
effect of the late layers depends on whose layers come before them, the two interact. Pure functions of typed records.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from demur.analysis.cell import Record

if TYPE_CHECKING:
    from numpy.typing import NDArray

BOUNDARY = 0.6
"""The boundary is after the measured layer that is nearest to this part of the depth."""


class UpstreamLate(Record):
    """The four combinations at one boundary. Rates are mean probabilities of a refusal.

    Attributes:
        layer: the last of the upstream layers.
        neither: upstream and late layers of the earlier checkpoint.
        upstream: upstream layers of the later checkpoint, late layers of the earlier one.
        late: the other way round.
        both: both of the later checkpoint.
        interaction: (both - upstream) - (late - neither): how much more the later checkpoint's late layers do after its own
            upstream layers.
        ci95: its bootstrap interval over instructions.
    """

    layer: int
    neither: float
    upstream: float
    late: float
    both: float
    interaction: float
    ci95: tuple[float, float]


def upstream_late(
    alone: "tuple[NDArray[Any], NDArray[Any]]",
    into_first: "Mapping[int, NDArray[Any]]",
    into_second: "Mapping[int, NDArray[Any]]",
    samples: "NDArray[Any]",
) -> UpstreamLate | None:
    """The four combinations at the boundary.

    Args:
        alone: the probabilities of each instruction in the earlier and in the later checkpoint.
        into_first: by layer, those with the later checkpoint's stream in the earlier one.
        into_second: by layer, those with the earlier checkpoint's stream in the later one.
        samples: bootstrap samples of the instructions, the sample itself first.

    Returns:
        The combinations; None if no layer was patched in both directions, or only the last one.
    """
    import numpy

    layers = sorted(set(into_first) & set(into_second))
    if len(layers) < 2:
        return None
    last = layers.pop()
    layer = min(layers, key=lambda one: abs(one + 1 - BOUNDARY * (last + 1)))
    cells = [each[samples].mean(axis=1) for each in (alone[0], into_first[layer], into_second[layer], alone[1])]
    neither, upstream, late, both = cells
    interaction = (both - upstream) - (late - neither)
    low, high = numpy.quantile(interaction[1:], (0.025, 0.975))
    rates = [float(each[0]) for each in cells]
    return UpstreamLate(
        layer=layer,
        neither=rates[0],
        upstream=rates[1],
        late=rates[2],
        both=rates[3],
        interaction=float(interaction[0]),
        ci95=(float(low), float(high)),
    )
