"""The stored measurements of pairs in one format, as the analysis reads them."""

from collections.abc import Sequence

from pydantic import JsonValue

from demur.analysis.diff.pair_results import MeasuredPair, MeasuredRun
from demur.core.errors import InputError
from demur.measurements.measurement import measurement
from demur.runs.rows import StoredMeasurement


def measured_pairs(records: Sequence[StoredMeasurement]) -> list[MeasuredPair]:
    """What was measured of pairs, from records that have runs. A record of another version of its measurement is left out.

    Args:
        records: the measurements of a run.
    """
    found = []
    for one in records:
        if not _known(one):
            continue
        facts = one.record.facts
        columns = [_column(facts[name]) for name in ("source", "target", "kind", "place")]
        values = one.record.arrays["probability"].tolist()
        made = tuple(
            MeasuredRun(str(source), str(target), str(kind), None if place is None else float(str(place)), tuple(row))
            for source, target, kind, place, row in zip(*columns, values, strict=True)
        )
        named = {name: str(facts[name]) for name in ("first", "second", "prompt", "judge")}
        gap = float(one.record.arrays["gap"].mean(axis=1).max())
        found.append(MeasuredPair(measurement=one.name, subject=one.subject, runs=made, gap=gap, **named))
    return found


def _column(value: JsonValue) -> list[JsonValue]:
    return value if isinstance(value, list) else []


def _known(one: StoredMeasurement) -> bool:
    try:
        known = measurement(one.name)
    except InputError:  # it is not installed here
        return False
    return known.version == one.version and bool(getattr(known, "one_format", False)) and "kind" in one.record.facts
