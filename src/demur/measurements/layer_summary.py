"""Where directions live, from what was measured at every layer to numbers that can be shown: separation, cosines, norms, places.

Pure functions over stored measurements. What is not defined at a layer, where both means are the same, is None. A run that was
not measured, as those of earlier versions, has none of this, and nothing is filled in for it.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from demur.core.statistics import auroc_interval
from demur.directions.geometry import separation
from demur.measurements.layerwise import DRAWS, Layerwise

Measured = Sequence[tuple[Mapping[str, Any], Layerwise]]
"""Facts of each arm, and its measurement."""

DIGITS = 5
"""Significant digits of what is written down: more than activations of half precision hold."""


def located(measured: Measured, layers: Sequence[int], order: Sequence[str]) -> dict[str, Any] | None:
    """What a summary holds under `by_layer`, arms in the order of the checkpoints; None where nothing was measured.

    `arms`: for each its raw norm, mean norms, and the held-out AUROC with its interval (Newcombe 2006) and that of random
    directions, by layer. `cosines`: between every two arms' directions by layer. `projections`: where each held-out instruction
    lies along the arm's direction at the study's `layers`.
    """
    if not measured:
        return None
    arms = sorted(measured, key=lambda one: order.index(one[0]["checkpoint"]))
    width = arms[0][1].difference.shape[-1]
    return {
        "site": arms[0][0]["site"],
        "position": arms[0][0]["position"],
        "draws": DRAWS,
        "arms": [{"checkpoint": facts["checkpoint"], "prompt": facts["prompt"], **_arm(found)} for facts, found in arms],
        "cosines": [
            {"arms": [one, other], "values": _cosines(arms, one, other)} for one, other in combinations(range(len(arms)), 2)
        ],
        "cosine_null95": _short(1.96 / width**0.5),
        "projections": [
            {"arm": index, "layer": layer, **_along(found, layer)} for index, (_, found) in enumerate(arms) for layer in layers
        ],
    }


def _arm(found: Layerwise) -> dict[str, Any]:
    norms = found.difference.double().norm(dim=-1)
    null = torch.quantile(found.null.double(), torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)
    rows: dict[str, list[Any]] = {"auroc": [], "auroc_ci95": [], "null_auroc95": [], "gap": []}
    for layer, norm in enumerate(norms.tolist()):
        high, low = found.harmful[:, layer], found.harmless[:, layer]
        if not norm:
            for values in rows.values():
                values.append(None)
            continue
        found_here = separation(high, low) if min(len(high), len(low)) > 1 else None
        rows["auroc"].append(None if found_here is None else _short(found_here.auroc))
        rows["gap"].append(None if found_here is None else _short(found_here.gap))
        rows["auroc_ci95"].append(
            None if found_here is None else [_short(v) for v in auroc_interval(found_here.auroc, len(high), len(low))]
        )
        rows["null_auroc95"].append(_listed(null[:, layer]))
    return {
        "raw_norm": _listed(norms),
        "mean_norm": {"harmful": _listed(found.norms[0]), "harmless": _listed(found.norms[1])},
        **rows,
    }


def _cosines(arms: Measured, one: int, other: int) -> list[float | None]:
    first, second = (arms[index][1].difference.double() for index in (one, other))
    lengths = first.norm(dim=-1) * second.norm(dim=-1)
    return [
        None if not length else _short(float(dot / length)) for dot, length in zip((first * second).sum(-1), lengths, strict=True)
    ]


def _along(found: Layerwise, layer: int) -> dict[str, list[float | None]]:
    return {"harmful": _listed(found.harmful[:, layer]), "harmless": _listed(found.harmless[:, layer])}


def _listed(values: Tensor) -> list[float | None]:
    return [_short(value) for value in values.tolist()]


def _short(value: float) -> float | None:
    return float(f"{value:.{DIGITS}g}") if abs(value) < float("inf") else None
