"""The measurements in a summary: the numbers of each stored record, without its arrays, and what could not be measured."""

import json
from collections.abc import Callable, Sequence
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
        records: the stored records: of arms, then of cells, each in the order of the study, then of pairs.
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
        asked, place = store.asked_measurements(), _places(store)
        records = tuple(
            sorted(
                (one for one in store.measurements() if asked is None or (one.name, one.settings) in asked),
                key=lambda one: place(one.subject),
            )
        )
        warnings = [
            f"The measurement {one.name} could not be made of {one.subject}: {sentence(one.reason)}"
            for one in sorted(store.unmeasured(), key=lambda one: place(one.subject))
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


def _places(store: "Store") -> Callable[[str], tuple[int, str]]:
    """Where a subject stands. The order of entry depends on how many workers made the run."""
    names = [*(arm.name for arm in store.manifest().arms), *store.planned_cells()]
    places = {name: place for place, name in enumerate(names)}

    def place(subject: str) -> tuple[int, str]:
        first, _, _ = subject.partition(" with ")
        # A pair stands after all arms and cells, by its first arm.
        return (places[subject], "") if subject in places else (len(places) + places.get(first, len(places)), subject)

    return place


def _numbers(one: StoredMeasurement) -> dict[str, JsonValue]:
    try:
        known = measurement(one.name)
    except InputError:
        return dict(one.record.facts)
    return known.summary(one.record) if known.version == one.version else dict(one.record.facts)
