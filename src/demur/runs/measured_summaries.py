"""The measurements in a summary: the numbers of each stored record, without its arrays."""

import json
from collections.abc import Sequence

from pydantic import JsonValue

from demur.analysis.summary import MeasurementSummary
from demur.core.errors import InputError
from demur.measurements.measurement import measurement
from demur.runs.rows import StoredMeasurement


def measurement_summaries(measured: Sequence[StoredMeasurement]) -> list[MeasurementSummary]:
    """The entry `measurements` of `summary.json`.

    Args:
        measured: stored records.

    Returns:
        One entry a record, by measurement, settings and subject. Of a measurement that is not installed here, or is of another
        version, only the stored facts are given.
    """
    return [
        MeasurementSummary(
            name=one.name,
            version=one.version,
            subject=one.subject,
            settings=json.loads(one.settings),
            summary=_numbers(one),
        )
        for one in sorted(measured, key=lambda one: (one.name, one.settings, one.subject))
    ]


def _numbers(one: StoredMeasurement) -> dict[str, JsonValue]:
    try:
        known = measurement(one.name)
    except InputError:
        return dict(one.record.facts)
    return known.summary(one.record) if known.version == one.version else dict(one.record.facts)
