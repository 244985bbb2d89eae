"""Means of the stream, and the spread of activations, as rows of the run's table, and back."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, cast

import torch
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from demur.directions.provenance import Provenance
from demur.interventions.facts.stream_spread import StreamSpread
from demur.interventions.stream_means import Label, StreamMeans
from demur.models.layouts import Point
from demur.runs.database.damage import FILE, damaged
from demur.runs.extracting.cell_needs import spread_label
from demur.runs.rows import StoredMeans


class _Facts(BaseModel):
    """The facts of stored means, or of a stored spread."""

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
    facts = _facts(means.points, means.position, means.count, means.provenance)
    return StoredMeans(arm, means.label, complete, facts, {"mean": means.mean.numpy(), "mean_norm": means.mean_norm.numpy()})


def spread_row(arm: str, layer: int, spread: StreamSpread) -> StoredMeans:
    """A spread as a row.

    Args:
        arm: the arm's name.
        layer: the layer at which it was read, for the row's label.
        spread: the spread.
    """
    facts = _facts((spread.where,), spread.position, len(spread.deviations), spread.provenance)
    return StoredMeans(arm, spread_label(layer), True, facts, {"deviations": spread.deviations.numpy()})


def _facts(points: Sequence[Point], position: int, count: int, provenance: Provenance) -> Mapping[str, JsonValue]:
    return _Facts(
        points=[(where.layer, where.site) for where in points],
        position=position,
        count=count,
        provenance=cast("dict[str, JsonValue]", provenance.facts()),
    ).model_dump(mode="json")


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
    read = Provenance.of(facts.provenance)
    return StreamMeans(cast(Label, row.label), _points(facts), mean, norm, facts.count, facts.position, read)


def spread_of_row(row: StoredMeans, folder: Path) -> StreamSpread:
    """A spread from a row.

    Args:
        row: the row.
        folder: the run folder, for messages.

    Raises:
        InputError: for a row that demur did not write.
    """
    try:
        facts = _Facts.model_validate(row.facts)
        deviations = torch.from_numpy(row.arrays["deviations"])
        (where,) = _points(facts)
    except (ValidationError, KeyError, TypeError, ValueError) as error:
        raise damaged(folder / FILE, f"the {row.label} of {row.arm}: {error}") from error
    if deviations.ndim != 2 or len(deviations) != facts.count or deviations.dtype != torch.float32:
        raise damaged(
            folder / FILE, f"the {row.label} of {row.arm} has the shape {tuple(deviations.shape)} for {facts.count} rows"
        )
    return StreamSpread(where, deviations, facts.position, Provenance.of(facts.provenance))


def _points(facts: _Facts) -> tuple[Point, ...]:
    return tuple(Point(layer, cast(Literal["resid_pre", "resid_mid"], site)) for layer, site in facts.points)
