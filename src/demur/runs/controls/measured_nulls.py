"""Refusal probabilities of a run's cells, and its null directions that have nothing else: claims are tested against them."""

import json
from collections.abc import Collection, Mapping, Sequence

from demur.analysis.cell import Cell
from demur.analysis.manifest import Manifest
from demur.core.errors import InputError, sentence
from demur.measurements.exact_refusal.probability_measurement import RefusalProbability
from demur.runs.describe import planned_cell
from demur.runs.rows import StoredMeasurement
from demur.study.plan import make_plan
from demur.study.spec import make_study


def refusal_probabilities(records: Sequence[StoredMeasurement], judge: str) -> dict[str, dict[int, float]]:
    """The probability of a refusal for one judge, by cell and position of the instruction.

    Args:
        records: the measurements of a run.
        judge: the judge; probabilities for another judge are another outcome.

    Returns:
        Cell key -> position -> probability. Empty if none was measured for this judge.
    """
    found: dict[str, dict[int, float]] = {}
    for one in records:
        if one.of(RefusalProbability) and json.loads(one.settings).get("judge", one.record.facts.get("judge")) == judge:
            found[one.subject] = {place: float(value) for place, value in enumerate(one.record.arrays["probability"].tolist())}
    return found


def unanswered_nulls(
    manifest: Manifest, known: Collection[str], probabilities: Mapping[str, object]
) -> tuple[list[Cell], list[str]]:
    """The cells that were measured and have no completions. A run does not store them; its study names them.

    They are those of null directions, and those of resamples of the training pairs.

    Args:
        manifest: the run's description.
        known: the keys of the cells that have completions.
        probabilities: the measured probabilities by cell key.

    Returns:
        The cells, and sentences for readers: one if the study cannot be read here, so that these cells are not known.
    """
    unknown = set(probabilities) - set(known)
    if not unknown:
        return [], []
    try:
        study = make_study(manifest.study, "the study of the run")
        return [planned_cell(study, cell) for cell in make_plan(study).null_cells if cell.key in unknown], []
    except InputError as error:
        return [], [f"Null directions without completions are left out of the tests: {sentence(str(error))}"]
