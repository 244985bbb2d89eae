"""The measurements in a summary: the numbers of each stored record, without its arrays, and what could not be measured."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import JsonValue

from demur.analysis.summary import MeasurementSummary
from demur.core.errors import InputError, sentence
from demur.measurements.measurement import measurement, without_pairs
from demur.runs.rows import StoredMeasurement

if TYPE_CHECKING:
    from demur.runs.store import Store


@dataclass(frozen=True)
class Measured:
    """The measurements of a run: those that its study asks for now, and those that were added.

    Attributes:
        records: the stored records, in order of entry.
        summaries: what `summary.json` holds under `measurements`: one entry for each record, sorted by measurement, settings and
            subject. If a measurement is not installed here, or has another version, its entry has the stored facts only.
        warnings: what could not be measured or summarised, and why, one sentence each.
    """

    records: tuple[StoredMeasurement, ...]
    summaries: tuple[MeasurementSummary, ...]
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, store: "Store", checkpoints: Sequence[str]) -> "Measured":
        """Read the measurements of a run.

        Args:
            store: the run folder.
            checkpoints: the checkpoint of each arm of the study.
        """
        asked = store.asked_measurements()
        records = tuple(one for one in store.measurements() if asked is None or (one.name, one.settings) in asked)
        warnings = [
            f"The measurement {one.name} could not be made of {one.subject}: {sentence(one.reason)}"
            for one in store.unmeasured()
            if asked is None or (one.name, one.settings) in asked
        ]
        for name in sorted({name for name, _ in asked or ()}):
            with suppress(InputError):  # it is not installed here
                warnings += without_pairs(measurement(name), checkpoints)
        summaries = []
        for one in sorted(records, key=lambda one: (one.name, one.settings, one.subject)):
            try:
                numbers = _numbers(one)
            except Exception as error:  # code of another package may raise anything
                reason = sentence(f"{type(error).__name__}: {error}")
                warnings.append(f"The measurement {one.name} of {one.subject} could not be summarised: {reason}")
                numbers = dict(one.record.facts)
            summaries.append(
                MeasurementSummary(
                    name=one.name,
                    version=one.version,
                    subject=one.subject,
                    settings=json.loads(one.settings),
                    summary=numbers,
                )
            )
        return cls(records, tuple(summaries), tuple(warnings))


def _numbers(one: StoredMeasurement) -> dict[str, JsonValue]:
    try:
        known = measurement(one.name)
    except InputError:
        return dict(one.record.facts)
    return known.summary(one.record) if known.version == one.version else dict(one.record.facts)
