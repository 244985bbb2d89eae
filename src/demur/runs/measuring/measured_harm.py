"""The stored records of the measurement `harmfulness` as the analysis reads them."""

from collections.abc import Sequence

from pydantic import JsonValue

from demur.analysis.harm.harm_results import TOKENS, MeasuredHarm
from demur.measurements.harm.harm_measurement import Harmfulness
from demur.runs.rows import StoredMeasurement


def measured_harm(records: Sequence[StoredMeasurement]) -> dict[str, MeasuredHarm]:
    """What was measured of harmfulness, by cell key. A record of another version of the measurement is left out.

    Args:
        records: the measurements of a run.
    """
    found = {}
    for one in records:
        if one.of(Harmfulness):
            arrays, facts = one.record.arrays, one.record.facts
            first, last = _texts(facts["tokens"])
            found[one.subject] = MeasuredHarm(
                projections={token: tuple(map(tuple, arrays[token].tolist())) for token in TOKENS},
                cosine=tuple(arrays["cosine"].tolist()),
                layer=int(str(facts["layer"])),
                tokens=(first, last),
                edits=tuple(_texts(facts["edits"])),
                certainly=tuple(map(tuple, arrays["certainly"].tolist())),
                no=tuple(map(tuple, arrays["no"].tolist())),
            )
    return found


def _texts(value: JsonValue) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else []
