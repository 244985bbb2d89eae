"""Summarises the arrays of `direction-agreement`, without torch."""

from collections.abc import Mapping
from typing import Any

import numpy
from numpy.typing import NDArray
from pydantic import JsonValue

from demur.measurements.by_layer_summary import rounded, short

Array = NDArray[numpy.floating[Any]]


def by_layer(arrays: Mapping[str, Array]) -> dict[str, JsonValue]:
    """The numbers of one pair of arms. Each list has one entry for each layer, None where a number is not defined.

    Args:
        arrays: the arrays of `Agreement`.
    """
    cosine, corrected, error, null = (arrays[name] for name in ("cosine", "corrected", "corrected_se", "null"))
    # An interval of a cosine cannot go beyond 1.
    low, high = ((corrected + sign * 1.96 * error).clip(-1, 1) for sign in (-1, 1))
    lowest, highest = numpy.quantile(null, [0.025, 0.975], axis=0)
    above = (1 + (null >= cosine).sum(0)) / (1 + len(null))
    return {
        "cosine": rounded(cosine),
        "corrected": rounded(corrected),
        "corrected_ci95": _pairs(low, high),
        "null_mean": rounded(null.mean(0)),
        "null95": _pairs(lowest, highest),
        "p_above": rounded(numpy.where(numpy.isnan(cosine), numpy.nan, above)),
        "halves": [rounded(arm) for arm in arrays["halves"]],
    }


def _pairs(low: Array, high: Array) -> list[JsonValue]:
    ends = [(short(one), short(other)) for one, other in zip(low.tolist(), high.tolist(), strict=True)]
    return [None if None in pair else list(pair) for pair in ends]
