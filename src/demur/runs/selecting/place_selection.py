"""Selects where to read the directions of a study: one selection for each arm, and one for all arms together.

Candidates are made from the study's training instructions and scored on validation instructions; the test part is not used. Every
checkpoint is loaded once and freed. If a criterion cannot be applied to an arm, the arm's `problem` says why, and the other arms
are still done.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from demur.core.errors import InputError, WorkError, nearest
from demur.core.progress import Phases, no_phases
from demur.directions.direction import Direction
from demur.engine.checkpoints import Checkpoint
from demur.inputs.duplicates.overlaps import overlap_warnings
from demur.inputs.instructions import read_instructions
from demur.inputs.prompts import Prompt, prompt_format
from demur.measurements.refusal_tokens import RefusalTokens, find_refusal_tokens
from demur.measurements.selection.candidates import Candidates, candidate_directions
from demur.measurements.selection.criteria import PLACE_CRITERIA
from demur.measurements.selection.ranking import Selection, jointly
from demur.measurements.selection.sweep import keep_refused, select_by_cosine, select_by_refusal, select_by_separation
from demur.models.device_placement import find_device
from demur.models.freed_memory import free_memory
from demur.runs.execution import load_named
from demur.study.plan import Arm, make_plan
from demur.study.preflight import Ready, check
from demur.study.selected_settings import for_planning
from demur.study.spec import LABELS, Label, Study

VALIDATION = 32
"""Validation instructions of each kind, as in Arditi et al.; fewer where a set has fewer."""


@dataclass(frozen=True, eq=False)
class Chosen:
    """One arm's selection with its candidates, or the reason why there is none.

    Attributes:
        arm: the name of the arm.
        selection: the places with their scores; None if there is no selection.
        candidates: the candidate directions.
        tokens: the refusal tokens, for the criterion that needs them.
        problem: why there is no selection; empty if there is one.
        kept: how many harmful and harmless training instructions passed the filter by refusal tokens.
    """

    arm: str
    selection: Selection | None
    candidates: Candidates | None = None
    tokens: RefusalTokens | None = None
    problem: str = ""
    kept: tuple[int, int] | None = None

    def direction(self, place: tuple[int, int] | None = None) -> Direction | None:
        """The candidate at a place, or at the best place of the selection; None if there is no candidate."""
        if self.candidates is None or self.selection is None:
            return None
        best = self.selection.best
        wanted = place or (best.place if best else None)
        return None if wanted is None else self.candidates.directions.get(wanted)

    def facts(self) -> dict[str, JsonValue]:
        """Everything that was measured, as plain data for JSON."""
        found, tokens = self.selection, self.tokens
        best = None if found is None else found.best
        return {
            "arm": self.arm,
            "problem": self.problem,
            "refusal_tokens": None
            if tokens is None
            else {
                "ids": list(tokens.ids),
                "texts": list(tokens.texts),
                "coverage": tokens.coverage,
                "precision": tokens.precision,
                "refusals": tokens.refusals,
                "n": tokens.n,
            },
            "kept": None if self.kept is None else list(self.kept),
            "criterion": None if found is None else found.criterion,
            "best": None if best is None else list(best.place),
            "places": [
                {"position": one.position, "layer": one.layer, "dropped": one.dropped, **one.measures}
                for one in (() if found is None else found.places)
            ],
        }


Sides = dict[Label, tuple[str, ...]]
"""Instructions by label."""


def choose(study: Study, by: str = "cosmic", *, device: str = "auto", phases: Phases = no_phases) -> Iterator[Chosen]:
    """Choose where to read the directions of a study, arm by arm.

    Args:
        study: the study.
        by: the criterion: `arditi`, `cosmic` or `separation`.
        device: where checkpoints are loaded.
        phases: shows progress.

    Yields:
        One `Chosen` for each arm, as soon as it is done.

    Raises:
        InputError: if the study has a fault that can be found before weights are read.
    """
    if by not in PLACE_CRITERIA:
        raise InputError(f"{by!r} is not a criterion; {nearest(by, PLACE_CRITERIA)}")
    find_device(device)
    plan = make_plan(for_planning(study))
    ready = check(plan)
    train: Sides = {label: ready.material[label].train for label in LABELS}
    held_out = held_out_sides(study, ready, VALIDATION)
    for name in study.checkpoints:
        with phases(f"loading {name}", 1) as progress:
            checkpoint = load_named(study, name, device)
            progress(1)
        for arm in (one for one in plan.arms_of(name) if not one.spelling):
            prompt = prompt_format(arm.spec, checkpoint, name=arm.prompt, control_tokens=study.control_tokens, system=arm.system)
            if not prompt.positions():
                problem = f"prompt format {prompt.name!r} has no tokens after the instruction, where directions could be read"
                yield Chosen(arm.name, None, problem=problem)
                continue
            try:
                found = _chosen(checkpoint, arm, prompt, by, study.direction.estimator, train, held_out, phases)
            except WorkError as error:
                found = Chosen(arm.name, None, problem=str(error))
            yield found
        del checkpoint
        free_memory()


def held_out_sides(study: Study, ready: Ready, n: int) -> Sides:
    """The first validation instructions of each kind. No training instruction is among them.

    Args:
        study: the study.
        ready: its checked plan, with the training instructions.
        n: at most so many of each kind.

    Raises:
        InputError: if a kind has fewer than 2, and if an instruction is, word for word or nearly, in the training or the test
            part as well, unless the study allows this.
    """
    train: Sides = {label: ready.material[label].train for label in LABELS}
    held_out: Sides = {label: read_instructions(study.instructions[label].source).take("validation")[:n] for label in LABELS}
    tested = {label: material.test for label, material in ready.material.items()} if study.split == "test" else {}
    for part, texts in (("training", train), ("test", tested)):
        overlap_warnings(texts.values(), held_out.values(), (part, "validation"), allowed=study.allow_overlap)
    for label in LABELS:
        if (found := len(held_out[label])) < 2:
            raise InputError(
                f"the {label} set {study.instructions[label].source!r} has too few validation instructions ({found}); a "
                "selection needs at least 2 of each kind"
            )
    return held_out


def _chosen(
    checkpoint: Checkpoint,
    arm: Arm,
    prompt: Prompt,
    by: str,
    estimator: str,
    train: Sides,
    held_out: Sides,
    phases: Phases,
) -> Chosen:
    tokens = kept = None
    if by == "arditi":
        with phases(f"refusal tokens of {arm.name}", sum(map(len, train.values()))) as progress:
            tokens = find_refusal_tokens(checkpoint, train["harmful"], train["harmless"], prompt, progress=progress)
        train = _filtered(checkpoint, train, prompt, tokens)
        kept = len(train["harmful"]), len(train["harmless"])
        held_out = _filtered(checkpoint, held_out, prompt, tokens)
    with phases(f"candidates of {arm.name}", sum(map(len, train.values()))) as progress:
        candidates = candidate_directions(
            checkpoint, train["harmful"], train["harmless"], prompt, estimator=estimator, progress=progress
        )
    sides = held_out["harmful"], held_out["harmless"]
    with phases(f"scores of {arm.name}", None) as progress:
        if tokens is not None:
            found = select_by_refusal(checkpoint, candidates, *sides, prompt, tokens.ids, progress=progress)
        elif by == "cosmic":
            found = select_by_cosine(checkpoint, candidates, *sides, prompt, progress=progress)
        else:
            found = select_by_separation(checkpoint, candidates, *sides, prompt, progress=progress)
    return Chosen(arm.name, found, candidates, tokens, kept=kept)


def _filtered(checkpoint: Checkpoint, sides: Sides, prompt: Prompt, tokens: RefusalTokens) -> Sides:
    harmful, harmless = keep_refused(checkpoint, sides["harmful"], sides["harmless"], prompt, tokens.ids)
    return {"harmful": harmful, "harmless": harmless}


def joint(chosen: Sequence[Chosen]) -> Selection | None:
    """One place for all arms.

    Args:
        chosen: what was chosen for each arm.

    Returns:
        The selection over all arms, or None if some arm has no selection.
    """
    selections = [one.selection for one in chosen if one.selection is not None]
    return jointly(selections) if len(selections) == len(chosen) > 0 else None
