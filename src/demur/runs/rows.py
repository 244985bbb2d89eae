"""Rows of the run's tables, as the store gives and takes them. Nothing here needs torch."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from demur.measurements.measurement import MeasurementRecord


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

    @property
    def key(self) -> tuple[str, str, str]:
        """Measurement, subject and settings: one record for each."""
        return self.name, self.subject, self.settings

    def array_bytes(self) -> bytes:
        """The arrays as the content of a safetensors file. The same arrays give the same bytes."""
        import numpy
        from safetensors.numpy import save

        return bytes(save({name: numpy.ascontiguousarray(array) for name, array in sorted(self.record.arrays.items())}))

    @classmethod
    def from_row(cls, name: str, subject: str, settings: str, version: int, facts: str, arrays: bytes) -> "StoredMeasurement":
        """A row of the table `measurements`."""
        from safetensors.numpy import load

        return cls(name, subject, settings, version, MeasurementRecord(json.loads(facts), load(arrays)))
