"""The stored records of the measurement `coherence` as the analysis reads them."""

from collections.abc import Sequence

from demur.analysis.doses.coherence_gate import MeasuredText
from demur.measurements.text_coherence import TextCoherence
from demur.runs.rows import StoredMeasurement


def measured_texts(records: Sequence[StoredMeasurement]) -> dict[str, MeasuredText]:
    """The measured texts of cells, by cell key. A record of another version of the measurement is left out.

    Args:
        records: the measurements of a run.
    """
    found = {}
    for one in records:
        if one.of(TextCoherence):
            arrays = {name: tuple(values.tolist()) for name, values in one.record.arrays.items()}
            found[one.subject] = MeasuredText(
                reference=str(one.record.facts["reference"]),
                loss=arrays["loss"],
                echo=tuple(map(bool, arrays["echo"])),
                degenerate=tuple(map(bool, arrays["degenerate"])),
                divergence=arrays.get("divergence", ()),
            )
    return found
