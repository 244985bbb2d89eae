"""Rows of the run's tables, as the store gives and takes them. Nothing here needs torch."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from pydantic import JsonValue

from demur.measurements.measurement import MeasurementRecord

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray


class Versioned(Protocol):
    """A class of measurements, by its name and version."""

    @property
    def name(self) -> str:
        """The name."""
        ...

    @property
    def version(self) -> int:
        """The version."""
        ...


class StoredCompletion(NamedTuple):
    """One completion.

    Attributes:
        cell: the cell's key.
        position: the instruction's place in its set, from 0.
        instruction: the instruction.
        text: the completion, without special tokens.
        token_ids: the tokens that were generated.
        own_turn: the text up to the token that ends the turn, where the completion goes on after it; else None.
    """

    cell: str
    position: int
    instruction: str
    text: str
    token_ids: Sequence[int]
    own_turn: str | None = None


class Unjudged(NamedTuple):
    """A completion on which some judge has given no verdict."""

    cell: str
    position: int
    instruction: str
    text: str
    own_turn: str | None = None


class StoredVerdict(NamedTuple):
    """One judge's verdict on one completion."""

    cell: str
    position: int
    judge: str
    refusal: bool
    label: str
    evidence: str


class StoredFailure(NamedTuple):
    """A judge could not judge one completion, for this reason."""

    cell: str
    position: int
    judge: str
    reason: str


class ServedModel(NamedTuple):
    """A model that answered a judge.

    Attributes:
        judge: the judge.
        model: the model, as its server names it.
        outputs: how many answers of it are stored.
        input_tokens: tokens of the requests, where the server counted them.
        output_tokens: tokens of the answers, where the server counted them.
        cost: their cost by the prices of the judge's spec; 0 without prices.
    """

    judge: str
    model: str
    outputs: int
    input_tokens: int
    output_tokens: int
    cost: float


class UnmeasuredSubject(NamedTuple):
    """A measurement could not be made of a subject. It is tried again when the run is resumed.

    Attributes:
        name: the measurement.
        subject: the arm, pair or cell.
        settings: the measurement's settings as canonical JSON.
        version: the version of the measurement.
        reason: why, in one sentence.
    """

    name: str
    subject: str
    settings: str
    version: int
    reason: str


@dataclass(frozen=True, eq=False)
class StoredMeasurement:
    """The result of one measurement of one subject.

    Attributes:
        name: the measurement.
        subject: the arm, pair or cell, by name.
        settings: the measurement's settings as canonical JSON.
        version: the version of the measurement.
        record: facts and arrays.
    """

    name: str
    subject: str
    settings: str
    version: int
    record: MeasurementRecord

    def of(self, measurement: Versioned) -> bool:
        """Whether it is of this measurement in this version. The arrays of another version may mean something else."""
        return (self.name, self.version) == (measurement.name, measurement.version)

    @property
    def key(self) -> tuple[str, str, str]:
        """Measurement, subject and settings: one record for each."""
        return self.name, self.subject, self.settings

    def array_bytes(self) -> bytes:
        """The arrays as the content of a safetensors file. The same arrays give the same bytes."""
        return array_bytes(self.record.arrays)

    @classmethod
    def from_row(cls, name: str, subject: str, settings: str, version: int, facts: str, arrays: bytes) -> "StoredMeasurement":
        """A row of the table `measurements`."""
        from safetensors.numpy import load

        return cls(name, subject, settings, version, MeasurementRecord(json.loads(facts), load(arrays)))


@dataclass(frozen=True, eq=False)
class StoredMeans:
    """Mean activations of one instruction set in one arm, or how its training activations vary at one layer.

    Attributes:
        arm: the arm's name.
        label: the label of the instructions, or `spread` and the layer.
        complete: whether they were read at every layer and site.
        facts: `points` as pairs of layer and site, `position`, `count`, and `provenance`.
        arrays: `mean`, (point, d_model), and `mean_norm`, (point,), float64; of a spread `deviations`, (instruction, d_model),
            float32.
    """

    arm: str
    label: str
    complete: bool
    facts: Mapping[str, JsonValue]
    arrays: "Mapping[str, NDArray[numpy.floating[Any]]]"

    def array_bytes(self) -> bytes:
        """The arrays as the content of a safetensors file. The same arrays give the same bytes."""
        return array_bytes(self.arrays)

    def mean_at(self, layer: int, site: str) -> "NDArray[numpy.floating[Any]] | None":
        """The mean activation at a site of a layer, (d_model,); None if it was not read there."""
        points = self.facts.get("points")
        # `resid_post` of a layer and `resid_pre` of the next are the same point; `demur.models.layouts.point` needs torch.
        place: list[JsonValue] = [layer + 1, "resid_pre"] if site == "resid_post" else [layer, site]
        if not isinstance(points, list) or place not in points:
            return None
        found: NDArray[numpy.floating[Any]] = self.arrays["mean"][points.index(place)]
        return found

    @classmethod
    def from_row(cls, arm: str, label: str, complete: int, facts: str, arrays: bytes) -> "StoredMeans":
        """A row of the table `means`."""
        from safetensors.numpy import load

        return cls(arm, label, bool(complete), json.loads(facts), load(arrays))


def array_bytes(arrays: "Mapping[str, NDArray[numpy.floating[Any]]]") -> bytes:
    """Arrays as the content of a safetensors file. The same arrays give the same bytes."""
    import numpy
    from safetensors.numpy import save

    return bytes(save({name: numpy.ascontiguousarray(array) for name, array in sorted(arrays.items())}))
