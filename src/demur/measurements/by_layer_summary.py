"""Summarises the records of the measurement `by-layer` for the report: separations, cosines, norms and projections, by layer.

Pure functions of stored records, without torch. If both means of a layer are the same, its numbers are undefined, so they are
None. A run without such records, for example one of an early version, has no summary by layer.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy
from numpy.typing import NDArray
from pydantic import JsonValue

from demur.core.statistics import auroc_interval
from demur.directions.separation import separation
from demur.measurements.by_layer_record import Layerwise
from demur.measurements.measurement import MeasurementRecord

Array = NDArray[numpy.floating[Any]]

DIGITS = 5
"""Significant digits of every number: more than activations in half precision have."""


def located(records: Sequence[MeasurementRecord], layers: Sequence[int], order: Sequence[str]) -> dict[str, JsonValue] | None:
    """The entry `by_layer` of a summary.

    Args:
        records: the records of `by-layer`, one for each arm.
        layers: the layers of the study's directions.
        order: the checkpoints of the study; arms are listed in their order.

    Returns:
        None if there are no records. Otherwise `arms` has, for each arm and by layer, the raw norm, the mean norms, the held-out
        AUROC with its interval (Newcombe 2006), and the AUROC of random directions. `cosines` are those between the directions of
        every two arms, by layer. `projections` are those of each held-out instruction on its arm's direction, at `layers`.
    """
    if not records:
        return None
    sorted_records = sorted(records, key=lambda one: order.index(str(one.facts["checkpoint"])))
    arms = [Layerwise.from_arrays(record.arrays) for record in sorted_records]
    first = sorted_records[0].facts
    return {
        "site": first["site"],
        "position": first["position"],
        "draws": min(len(arm.null) for arm in arms),
        "arms": [
            {"checkpoint": record.facts["checkpoint"], "prompt": record.facts["prompt"], **of_arm(record)}
            for record in sorted_records
        ],
        "cosines": [
            {"arms": [one, other], "values": _cosines(arms[one], arms[other])} for one, other in combinations(range(len(arms)), 2)
        ],
        "cosine_null95": short(1.96 / arms[0].difference.shape[-1] ** 0.5),
        "projections": [
            {"arm": index, "layer": layer, **_along(found, layer)} for index, found in enumerate(arms) for layer in layers
        ],
    }


def of_arm(record: MeasurementRecord) -> dict[str, JsonValue]:
    """The numbers of one arm. Each list has one entry for each layer.

    Args:
        record: the record of the arm.

    Returns:
        `raw_norm`, `mean_norm` of each side, `auroc` with `auroc_ci95` and `null_auroc95`, and `gap`.
    """
    found = Layerwise.from_arrays(record.arrays)
    norms = numpy.linalg.norm(found.difference.astype(numpy.float64), axis=-1)
    null = numpy.quantile(found.null.astype(numpy.float64), [0.025, 0.975], axis=0)
    areas: list[JsonValue] = []
    intervals: list[JsonValue] = []
    nulls: list[JsonValue] = []
    gaps: list[JsonValue] = []
    for layer, norm in enumerate(norms.tolist()):
        high, low = found.harmful[:, layer], found.harmless[:, layer]
        separated = separation(high, low) if norm and min(len(high), len(low)) > 1 else None
        areas.append(None if separated is None else short(separated.auroc))
        gaps.append(None if separated is None else short(separated.gap))
        intervals.append(
            None if separated is None else [short(value) for value in auroc_interval(separated.auroc, len(high), len(low))]
        )
        nulls.append(rounded(null[:, layer]) if norm else None)
    return {
        "raw_norm": rounded(norms),
        "mean_norm": {"harmful": rounded(found.norms[0]), "harmless": rounded(found.norms[1])},
        "auroc": areas,
        "auroc_ci95": intervals,
        "null_auroc95": nulls,
        "gap": gaps,
    }


def _cosines(one: Layerwise, other: Layerwise) -> list[JsonValue]:
    first, second = one.difference.astype(numpy.float64), other.difference.astype(numpy.float64)
    lengths = numpy.linalg.norm(first, axis=-1) * numpy.linalg.norm(second, axis=-1)
    dots = (first * second).sum(-1)
    return [short(dot / length) if length else None for dot, length in zip(dots.tolist(), lengths.tolist(), strict=True)]


def _along(found: Layerwise, layer: int) -> dict[str, JsonValue]:
    return {"harmful": rounded(found.harmful[:, layer]), "harmless": rounded(found.harmless[:, layer])}


def rounded(values: Array) -> list[JsonValue]:
    """Numbers with few digits, None where one is not finite."""
    return [short(value) for value in values.tolist()]


def short(value: float) -> float | None:
    """A number with few digits; None if it is not finite."""
    return float(f"{value:.{DIGITS}g}") if abs(value) < float("inf") else None
