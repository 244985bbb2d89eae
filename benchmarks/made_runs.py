"""Run folders of any size, written with the store's own functions and without a model: for what must stay quick and readable.

Two shapes. A matrix: every direction ablated on every checkpoint. A lineage: the same over ordered training steps, with harmless
instructions, five controls and directions measured at every layer.
"""

import hashlib
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from demur.analysis.manifest import ArmFacts, CheckpointFacts, Environment, Session
from demur.core.versions import versions
from demur.directions.direction import Direction, from_raw
from demur.directions.provenance import Provenance
from demur.inputs.training_texts import TrainingTexts
from demur.measurements.by_layer_record import Layerwise
from demur.measurements.measurement import MeasurementRecord
from demur.runs.describe import describe
from demur.runs.driver import commit
from demur.runs.extracting.training_activations import direction_facts
from demur.runs.job_inputs import JobInputs
from demur.runs.judging_stored import judge_stored
from demur.runs.records import CheckpointLoaded, CompletionsMade, DirectionMade
from demur.runs.rows import StoredCompletion, StoredMeasurement
from demur.runs.store import Store
from demur.study.plan import Arm, Plan, PlannedCell, make_plan
from demur.study.preflight import Material, Ready
from demur.study.spec import Study, make_study

if TYPE_CHECKING:
    import numpy
    import torch
    from numpy.typing import NDArray

WIDTH, LAYERS = 64, 24
# fmt: off
_WORDS = (
    "first", "take", "the", "small", "red", "box", "and", "put", "it", "where", "nobody", "looks", "then", "wait", "until",
    "they", "come", "back", "with", "their", "own", "key",
)
_SYLLABLES = ("ba", "ce", "di", "fo", "gu", "ha", "je", "ki", "lo", "mu", "na", "pe", "qui", "ro", "su", "ta", "ve", "wi", "xo")
# fmt: on
_REFUSALS = ("I'm sorry, but I can't help with", "I cannot assist with", "I can't do that:", "As an AI, I will not write")


@dataclass(frozen=True)
class Shape:
    """The size of a made run.

    Attributes:
        checkpoints: how many; each has one direction, which is ablated on all of them.
        completions: how many a cell has.
        controls: null directions, each ablated on every checkpoint.
        lineage: whether the checkpoints are training steps in order, and harmless instructions and layers are measured too.
    """

    checkpoints: int
    completions: int
    controls: int = 3
    lineage: bool = False

    def study(self) -> Study:
        """The study of such a run. Its checkpoints are nowhere."""
        names = [f"step{1000 * number}" if self.lineage else f"model-{number:02}" for number in range(1, self.checkpoints + 1)]
        sets: dict[str, object] = {"test": self.completions}
        facts: dict[str, object] = {
            "name": "lineage" if self.lineage else "matrix",
            "checkpoints": {name: {"model": f"maker/{name}", "prompts": ["user-assistant"]} for name in names},
            "instructions": {
                "harmful": {"source": "contrast-harmful", **sets},
                "harmless": {"source": "contrast-harmless", **sets},
            },
            "direction": {"pairs": 32, "layers": [12]},
            "controls": {"random": self.controls},
            "measurements": ["by-layer"] if self.lineage else [],
            "interventions": [{"kind": "ablate", "on": ["harmful"]}],
        }
        return make_study(facts, "a made study")


def write_run(folder: Path, shape: Shape, seed: int = 0) -> Path:
    """Write a finished and judged run of this shape.

    Args:
        folder: a new folder.
        shape: its size.
        seed: of its verdicts and texts.

    Returns:
        The folder.
    """
    import torch

    chance, study = random.Random(seed), shape.study()
    plan = make_plan(study)
    if not shape.lineage:
        # The matrix has no harmless completions: 60 checkpoints and 3 controls give 3,840 cells.
        plan = Plan(study, plan.arms, plan.directions, tuple(cell for cell in plan.cells if cell.instructions == "harmful"))
    ready = Ready(plan, {label: _material(label, shape.completions) for label in study.sets}, {})
    store = Store.create(folder, study.digest, study.toml())
    store.remember("deciding", study.deciding())
    describe(ready, store)
    machine = Environment(system="", machine="")
    store.remember_session(Session(versions={**versions(), "python": "3"}, environment=machine, device="cpu"))
    for arm in plan.arms:
        commit(_loaded(arm), store)
    inputs = JobInputs(ready, store, "cpu")
    for direction in _directions(plan, torch.Generator().manual_seed(seed)):
        commit(DirectionMade(direction, direction_facts(direction, inputs)), store)
    if shape.lineage:
        for place, arm in enumerate(plan.arms):
            store.add_measurement(_measured(arm, place / max(1, len(plan.arms) - 1), shape.completions))
    ranks = {arm.checkpoint: place / max(1, len(plan.arms) - 1) for place, arm in enumerate(plan.arms)}
    for arm in plan.arms:
        cells = plan.of(arm.checkpoint)
        rows = (row for cell in cells for row in _rows(cell, ranks, ready.material[cell.instructions], chance))
        commit(CompletionsMade(tuple(rows)), store)
    judge_stored(store, study.judges)
    store.close()
    return folder


def _material(label: str, n: int) -> Material:
    def texts(kind: str, count: int) -> tuple[str, ...]:
        # Words of their own, because near-duplicates would be one group in the tests.
        made = random.Random(f"{label} {kind}")
        words = ["".join(made.choices(_SYLLABLES, k=3)) for _ in range(9 * count)]
        return tuple(" ".join(words[9 * number : 9 * number + 9]) + "?" for number in range(count))

    train = texts("training", 32)
    return Material("made", train, texts("test", n), draws={None: TrainingTexts(train)})


def _loaded(arm: Arm) -> CheckpointLoaded:
    facts = CheckpointFacts(
        model=f"maker/{arm.checkpoint}",
        source=f"maker/{arm.checkpoint}",
        fingerprint=hashlib.sha256(arm.name.encode()).hexdigest()[:16],
        d_model=WIDTH,
        n_layers=LAYERS,
        dtype="float32",
        device="cpu",
    )
    read = ArmFacts(checkpoint=arm.checkpoint, prompt=arm.prompt, template="User: {instruction}", token_read=":")
    return CheckpointLoaded(arm.checkpoint, facts, (read,))


def _directions(plan: Plan, generator: "torch.Generator") -> Iterator[Direction]:
    """A walk: the directions of neighbours resemble each other most. Controls are drawn alone."""
    import torch

    here = torch.randn(WIDTH, generator=generator)
    for planned in plan.directions:
        step = torch.randn(WIDTH, generator=generator)
        if not planned.control:
            here = here + 0.3 * step
        raw = step if planned.control else here
        facts: Mapping[str, JsonValue] = {"fingerprint": "0" * 16, "mean residual norm": 50.0}
        yield from_raw(raw, name=planned.name, layer=planned.layer, provenance=Provenance.model_validate(facts))


def _measured(arm: Arm, rank: float, n: int) -> StoredMeasurement:
    import numpy

    draw = numpy.random.default_rng(int(1000 * rank))

    def side(at: float) -> "NDArray[numpy.float32]":
        return (at + draw.normal(0, 0.4, (n, LAYERS))).astype("float32")

    found = Layerwise(
        difference=draw.normal(rank, 1, (LAYERS, WIDTH)).astype("float32"),
        norms=numpy.full((2, LAYERS), 50, "float32"),
        harmful=side(0.95),
        harmless=side(0.05),
        null=(0.5 + draw.normal(0, 0.1, (100, LAYERS))).astype("float32"),
    )
    facts: Mapping[str, JsonValue] = {"checkpoint": arm.checkpoint, "prompt": arm.prompt, "site": "resid_pre", "position": -1}
    return StoredMeasurement("by-layer", arm.name, "{}", 1, MeasurementRecord(facts, found.arrays()))


def _rows(cell: PlannedCell, ranks: Mapping[str, float], material: Material, chance: random.Random) -> Iterator[StoredCompletion]:
    """Later checkpoints refuse more; the nearer the direction's source is to the target, the more its ablation takes away."""
    target = ranks[cell.target.checkpoint]
    rate = 0.05 + 0.85 * target if cell.instructions == "harmful" else 0.03
    if cell.direction is not None and not cell.direction.control:
        rate *= 0.1 + 0.8 * abs(target - ranks[cell.direction.source])
    for position, ask in enumerate(material.test):
        refused = chance.random() < rate
        words = " ".join(chance.choices(_WORDS, k=4 if refused else 12))
        text = f"{chance.choice(_REFUSALS)} {words}" if refused else f"{words.capitalize()}."
        yield StoredCompletion(cell.key, position, ask, text, tuple(range(16)))
