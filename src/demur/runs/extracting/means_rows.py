"""Means of the stream as rows of the run's table, and back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, cast

import torch
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from demur.directions.provenance import Provenance
from demur.interventions.stream_means import Label, StreamMeans
from demur.models.layouts import Point
from demur.runs.database.damage import FILE, damaged
from demur.runs.rows import StoredMeans


class _Facts(BaseModel):
    """The facts of stored means."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    points: list[tuple[int, str]]
    position: int
    count: int
    provenance: dict[str, JsonValue]


def row_of(arm: str, means: StreamMeans, *, complete: bool) -> StoredMeans:
    """Means as a row.

    Args:
        arm: the arm's name.
        means: the means.
        complete: whether they were read at every layer and site.
    """
    facts: Mapping[str, JsonValue] = _Facts(
        points=[(where.layer, where.site) for where in means.points],
        position=means.position,
        count=means.count,
        provenance=cast("dict[str, JsonValue]", means.provenance.facts()),
    ).model_dump(mode="json")
    return StoredMeans(arm, means.label, complete, facts, {"mean": means.mean.numpy(), "mean_norm": means.mean_norm.numpy()})


def means_of_row(row: StoredMeans, folder: Path) -> StreamMeans:
    """Means from a row.

    Args:
        row: the row.
        folder: the run folder, for messages.

    Raises:
        InputError: for a row that demur did not write.
    """
    try:
        facts = _Facts.model_validate(row.facts)
        mean, norm = (torch.from_numpy(row.arrays[name]) for name in ("mean", "mean_norm"))
    except (ValidationError, KeyError, TypeError) as error:
        raise damaged(folder / FILE, f"the means of {row.arm}: {error}") from error
    n = len(facts.points)
    if mean.ndim != 2 or mean.shape[0] != n or norm.shape != (n,) or mean.dtype != torch.float64:
        raise damaged(folder / FILE, f"the means of {row.arm} have the shape {tuple(mean.shape)} for {n} points")
    points = tuple(Point(layer, cast(Literal["resid_pre", "resid_mid"], site)) for layer, site in facts.points)
    read = Provenance.of(facts.provenance)
    return StreamMeans(cast(Label, row.label), points, mean, norm, facts.count, facts.position, read)
