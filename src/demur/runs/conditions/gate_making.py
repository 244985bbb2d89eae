"""Decides a gate of a run: its threshold, and how often it is open. The result is stored like a measurement of the arm."""

import json

import numpy
from pydantic import JsonValue

from demur.core.edit_words import GATE
from demur.core.errors import WorkError
from demur.core.progress import Progress
from demur.directions.direction import Direction
from demur.engine.checkpoints import Checkpoint
from demur.engine.conditions.find_gate import best_threshold, f1, prompt_scores
from demur.interventions.gates.gate import Gate
from demur.measurements.measurement import MeasurementRecord
from demur.runs.conditions.gate_jobs import GateJob
from demur.runs.extracting.cell_needs import GateName
from demur.runs.job_inputs import JobInputs
from demur.runs.rows import StoredMeasurement
from demur.study.spec import LABELS

VERSION = 1
"""Raise it when the method changes."""


def gate_made(job: GateJob, inputs: JobInputs, checkpoint: Checkpoint, progress: Progress) -> StoredMeasurement:
    """Compare the training and test prompts of an arm with the condition direction.

    Args:
        job: the job.
        inputs: what jobs read.
        checkpoint: the loaded checkpoint of the arm.
        progress: called with the number of instructions that were just read.

    Returns:
        A record of the arm. Its facts have the threshold, the side on which the gate is open, whether the threshold was found on
        training instructions, and the share of each set's prompts that opens it. Its arrays are the cosines.
    """
    arm, condition, settings = inputs.arm(job.arm), inputs.direction(job.direction), json.loads(job.settings)
    prompt, material = inputs.prompt(arm, checkpoint), inputs.ready.material
    seed = inputs.study.direction.seeds[0]
    texts = {f"train {label}": material[label].trained(seed) for label in LABELS}
    texts |= {name: material[name].test for name in inputs.study.sets}
    cosines = {}
    for name, some in texts.items():
        cosines[name] = prompt_scores(checkpoint, condition, some, prompt, settings["tokens"])
        progress(len(some))
    sides = cosines["train harmful"], cosines["train harmless"]
    found = settings["above"] is None and settings["below"] is None
    if found:
        threshold, above = best_threshold(*sides)
    else:
        above = settings["above"] is not None
        threshold = settings["above"] if above else settings["below"]
    gate = Gate(condition, threshold, above, settings["tokens"])
    shares: dict[str, JsonValue] = {
        name: sum(map(gate.passes, values)) / len(values) for name, values in cosines.items() if values
    }
    facts: dict[str, JsonValue] = {
        "checkpoint": arm.checkpoint,
        "prompt": arm.prompt,
        "layer": condition.layer,
        "site": condition.site,
        "threshold": threshold,
        "open": "above" if above else "below",
        "found": found,
        "f1": f1(*sides, threshold, above),
        "open_shares": shares,
    }
    arrays = {name: numpy.asarray(values, dtype=numpy.float64) for name, values in cosines.items()}
    return StoredMeasurement(GATE, arm.name, job.settings, VERSION, MeasurementRecord(facts, arrays))


def stored_gate(inputs: JobInputs, name: GateName) -> Gate:
    """A gate of the run as edits take it.

    Args:
        inputs: what jobs read.
        name: the target arm and the settings of the gate.

    Raises:
        WorkError: if it is not stored.
    """
    record, settings = inputs.store.gate(name), json.loads(name[1])
    if record is None:
        raise WorkError(f"the gate of {name[0]!r} is missing from {str(inputs.store.folder)!r}; run the study again")
    condition: Direction = inputs.direction(settings["direction"])
    facts = record.record.facts
    return Gate(condition, float(str(facts["threshold"])), facts["open"] == "above", settings["tokens"])
