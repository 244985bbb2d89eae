"""The stored measurements of pairs in one format, as the analysis reads them."""

from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from demur.analysis.diff.pair_results import MeasuredPair, MeasuredRun
from demur.core.errors import InputError
from demur.measurements.measurement import measurement
from demur.runs.measuring.broken_shares import broken_shares
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
        values, broken = one.record.arrays["probability"].tolist(), _broken_more(facts)
        made = tuple(
            MeasuredRun(
                str(source),
                str(target),
                str(kind),
                _number(place),
                tuple(row),
                broken.get((str(target), _number(place))) if kind in _WRITTEN else None,
            )
            for source, target, kind, place, row in zip(*columns, values, strict=True)
        )
        named = {name: str(facts[name]) for name in ("first", "second", "prompt", "judge")}
        gap = float(one.record.arrays["gap"].mean(axis=1).max())
        found.append(MeasuredPair(measurement=one.name, subject=one.subject, runs=made, gap=gap, **named))
    return found


_WRITTEN = ("stream", "amplified")
"""The kinds of runs in which greedy completions are written."""


def _broken_more(facts: Mapping[str, JsonValue]) -> dict[tuple[str, float | None], float]:
    """For each target and place, the share of broken text above that of the target as it is."""
    texts = [str(text) for text in _column(facts.get("written_text"))]
    places = [(str(target), _number(place)) for target, place in zip(*_written_places(facts), strict=True)]
    shares = broken_shares(places, texts)
    # A mixture with the coefficient 0 is the later checkpoint as it is.
    alone = {target: shares.get((target, None), shares.get((target, 0.0))) for target, _ in shares}
    return {place: share - whole for place, share in shares.items() if (whole := alone[place[0]]) is not None}


def _written_places(facts: Mapping[str, JsonValue]) -> tuple[list[JsonValue], list[JsonValue]]:
    return _column(facts.get("written_target")), _column(facts.get("written_place"))


def _number(value: JsonValue) -> float | None:
    return None if value is None else float(str(value))


def _column(value: JsonValue) -> list[JsonValue]:
    return value if isinstance(value, list) else []


def _known(one: StoredMeasurement) -> bool:
    try:
        known = measurement(one.name)
    except InputError:  # it is not installed here
        return False
    return known.version == one.version and bool(getattr(known, "one_format", False)) and "kind" in one.record.facts
