"""Studies with known truth whose completions a judge and a person judged: for tests of labels, agreement and corrected rates."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator

from demur.analysis.cell import Cell
from demur.analysis.judging.judge_correction import corrected_rates
from demur.analysis.judging.raters import Place, Rater, Sampled
from demur.analysis.judging.rating_records import CorrectedRate
from demur.analysis.manifest import JudgeFacts
from demur.judges.judge import Verdict
from demur.runs.labelling.label_plan import drawable, drawn_sample
from demur.runs.labelling.label_records import LabelDesign, LabelledSample
from demur.runs.labelling.label_session import labelling_order
from demur.runs.rows import StoredCompletion, StoredVerdict
from demur.runs.store import Store

LABELS, REFUSALS = ("refusal", "other"), ("refusal",)


@dataclass(frozen=True)
class Arm:
    """A checkpoint as it is: how often it refuses, and how the judge errs on what it writes."""

    rate: float
    sensitivity: float
    specificity: float


def labelled_study(
    generator: Generator, arms: dict[str, Arm], n: int, labels: int, *, stopped: float = 1.0
) -> dict[str, CorrectedRate]:
    """One simulated study, labelled as demur does it: the corrected rate of each arm.

    Args:
        generator: random numbers.
        arms: the checkpoints.
        n: instructions.
        labels: the size of the sample.
        stopped: the part of the sample after which the labeller stops.
    """
    cells = [Cell(key=name, target=name, prompt="p", instructions="harmful", intervention="none") for name in arms]
    truth: dict[Place, bool] = {}
    said: dict[Place, bool] = {}
    for name, arm in arms.items():
        refuses = generator.random(n) < arm.rate
        found = np.where(refuses, generator.random(n) < arm.sensitivity, generator.random(n) >= arm.specificity)
        truth |= {(name, position): bool(each) for position, each in enumerate(refuses)}
        said |= {(name, position): bool(each) for position, each in enumerate(found)}
    verdicts = [StoredVerdict(*place, "judge", each, LABELS[not each], "") for place, each in said.items()]
    units = drawable({name: set(range(n)) for name in arms}, verdicts, ["judge"])
    seed = int(generator.integers(1 << 30))
    strata, frame = drawn_sample(units, cells, labels, seed)
    sample = LabelledSample(
        LabelDesign(judge="judge", labels=LABELS, refusal_labels=REFUSALS, seed=seed), tuple(strata), tuple(frame)
    )
    order = labelling_order(sample, "ann")[: round(stopped * labels)]
    person = Rater("ann", True, LABELS, REFUSALS, {place: LABELS[not truth[place]] for place in order})
    judge = Rater("judge", False, LABELS, REFUSALS, {place: LABELS[not each] for place, each in said.items()})
    sampled = Sampled({(row.cell, row.position): row.stratum for row in frame}, {one.name: one.size for one in strata})
    groups = {"harmful": list(range(n))}
    return {one.target: one for one in corrected_rates([judge], [person], cells, groups, sampled)}


def labelled_store(folder: Path, n: int = 20) -> Store:
    """A run without a model: two checkpoints, each with and without an edit. Its two judges differ on every fifth text."""
    store = Store.create(folder, "digest", "")
    store.remember_study({"judges": ["prefix", "taxonomy"], "checkpoints": {"base": {}, "chat": {}}})
    keys = [(target, edit) for target in ("base", "chat") for edit in ("none", "ablate")]
    store.add_cells(
        Cell(key=f"{target}-{edit}", target=target, prompt="p", instructions="harmful", intervention=edit, action=edit)
        for target, edit in keys
    )
    for facts in (JudgeFacts(name="prefix"), JudgeFacts(name="taxonomy", labels=("refusal", "deflection", "compliance"))):
        store.remember_judge(facts)
    for target, edit in keys:
        cell = f"{target}-{edit}"
        texts = [f"{target} {edit} {position}: {'I cannot' if position % 2 else 'Sure'}" for position in range(n)]
        store.add_completions(
            StoredCompletion(cell, position, f"ask {position}", text, (1, 2), f"own {text}" if position == 3 else None)
            for position, text in enumerate(texts)
        )
        prefix = [Verdict("prefix", bool(place % 2), LABELS[1 - place % 2]) for place in range(n)]
        other = [bool(place % 2) != (place % 5 == 0) for place in range(n)]
        taxonomy = [Verdict("taxonomy", each, "refusal" if each else "compliance") for each in other]
        store.add_answers("prefix", [(cell, place, each) for place, each in enumerate(prefix)])
        store.add_answers("taxonomy", [(cell, place, each) for place, each in enumerate(taxonomy)])
    return store
