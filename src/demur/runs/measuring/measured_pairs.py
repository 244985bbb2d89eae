"""The stored measurements of pairs in one format, as the analysis reads them."""

from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from demur.analysis.diff.pair_results import ALONE, MeasuredPair, MeasuredRun
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
                broken.get((str(target), str(kind), _number(place))),
            )
            for source, target, kind, place, row in zip(*columns, values, strict=True)
        )
        named = {name: str(facts[name]) for name in ("first", "second", "prompt", "judge")}
        gap = float(one.record.arrays["gap"].mean(axis=1).max())
        found.append(MeasuredPair(measurement=one.name, subject=one.subject, runs=made, gap=gap, **named))
    return found


def _broken_more(facts: Mapping[str, JsonValue]) -> dict[tuple[str, str, float | None], float]:
    """For each target, kind and place, the share of broken text above that of the target as it is."""
    texts = [str(text) for text in _column(facts.get("written_text"))]
    shares = broken_shares(_written_runs(facts), texts)
    # A mixture with the coefficient 0 is the later checkpoint as it is.
    alone = {target: shares.get((target, ALONE, None), shares.get((target, "amplified", 0.0))) for target, _, _ in shares}
    return {run: share - whole for run, share in shares.items() if run[1] != ALONE and (whole := alone[run[0]]) is not None}


def _written_runs(facts: Mapping[str, JsonValue]) -> list[tuple[str, str, float | None]]:
    """Target, kind and place of each completion."""
    targets, places = (_column(facts.get(name)) for name in ("written_target", "written_place"))
    kinds = _column(facts.get("written_kind"))
    if not kinds:
        # Records that were made before completions had a kind have them in one kind of runs only.
        only = "amplified" if "amplified" in _column(facts["kind"]) else "stream"
        kinds = [ALONE if place is None else only for place in places]
    return [(str(target), str(kind), _number(place)) for target, kind, place in zip(targets, kinds, places, strict=True)]


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
