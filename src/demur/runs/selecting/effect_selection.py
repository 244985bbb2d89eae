"""Selects the open settings of a study by effect: what its own edits do on validation instructions.

The arms that refuse decide. First, the log-odds of a refusal are measured for every layer; then completions are judged for the
few best places and for every dose. A direction is always tried in the arm that it came from. How directions move between
checkpoints is what the run tests, so it is never used to choose.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from pydantic import TypeAdapter

from demur.analysis.selection_record import SelectedPlace, SelectionArm, SelectionRecord
from demur.core.errors import WorkError
from demur.core.progress import Phases, no_phases
from demur.engine.checkpoints import Checkpoint
from demur.inputs.prompts import Prompt, prompt_format
from demur.interventions.target_facts import TargetFacts
from demur.judges.judge import get_judge
from demur.measurements.refusal_tokens import RefusalTokens, find_refusal_tokens
from demur.measurements.selection.candidates import Candidates, Place, candidate_directions
from demur.measurements.selection.effect import (
    PlaceEffect,
    place_effects,
    rows_of_rounds,
)
from demur.measurements.selection.finished_steps import FinishedSteps
from demur.measurements.selection.ranking import LAST_LAYERS, late
from demur.measurements.selection.trial_outcomes import Outcome, outcomes, unedited
from demur.models.device_placement import find_device
from demur.runs.growing.stored_study import result_names
from demur.runs.selecting.place_choice import Tried, chosen_doses, chosen_place, joint_effects, notes_on
from demur.runs.selecting.place_selection import Sides, held_out_sides
from demur.runs.selecting.selection_loads import Loads
from demur.runs.selecting.trials import deciding_numbers, middle_of, trial_means, trial_of, trials_of
from demur.study.plan import Arm
from demur.study.preflight import Ready
from demur.study.selected_settings import FINALISTS, TOKEN_TEXTS, doses_of
from demur.study.spec import LABELS, Label, Study
from demur.study.spec_fields import SELECT

WORTH = 0.3
"""Completions are made for places with at least this part of the best place's effect on the log-odds."""

LEAST_REFUSALS = 0.1
"""An arm that refuses a smaller share of harmful instructions does not decide: its edits have nothing to remove."""

HALF = 0.5
"""Nor does an arm that refuses less than this part of what the most refusing arm does. It would add more noise than effect."""


@dataclass
class _ArmWork:
    """What was found for one arm so far. `means` has the means that the study's edits need, by position."""

    arm: Arm
    prompt: Prompt
    before: Mapping[Label, Outcome]
    facts: SelectionArm
    steps: FinishedSteps
    candidates: Candidates | None = None
    means: Mapping[int, TargetFacts] = field(default_factory=dict)
    effects: dict[Place, PlaceEffect] = field(default_factory=dict)
    tried: dict[tuple[Place, int, float], Outcome] = field(default_factory=dict)


def select_by_effect(
    study: Study,
    ready: Ready,
    *,
    device: str = "auto",
    phases: Phases = no_phases,
    steps: FinishedSteps | None = None,
) -> SelectionRecord:
    """Select everything that a study leaves open.

    Args:
        study: the study with its open keys.
        ready: its checked plan; the plan's own layer and doses are not used.
        device: where checkpoints are loaded.
        phases: shows progress.
        steps: steps that an earlier selection of the same study finished on the same machine; they are not done again.

    Returns:
        What was selected, and all measures.

    Raises:
        InputError: if there are too few validation instructions.
        WorkError: if no arm refuses often enough to decide, and if no place has an effect without damage.
    """
    find_device(device)
    sides = held_out_sides(study, ready, study.selection.instructions)
    train: Sides = {label: ready.material[label].train for label in LABELS}
    loads = Loads(study, device, phases)
    works = _all_unedited(loads, ready, sides, phases, _of_these(steps or FinishedSteps(), study, sides, train))
    for work in loads.last_first(works):
        if not work.facts.problem:
            with loads.checkpoint(work.arm.checkpoint) as checkpoint:
                _effects(checkpoint, work, study, train, sides, phases)
    deciding = [work for work in works if work.candidates is not None]
    if not deciding:
        raise WorkError(_nobody_decides(works))
    joint = joint_effects([work.effects for work in deciding], study.selection.kl)
    good = [place for place in joint if not place.dropped][:FINALISTS]
    # Completions take most of the time, so they are not made for places that do next to nothing.
    finalists = [place.place for place in good if place.share >= WORTH * good[0].share]
    _completions(loads, deciding, study, _middle_doses(study, finalists), sides, phases)
    best = chosen_place(study, joint, finalists, _tried(works))[0]
    # Other doses are tried at the best place only, and everywhere if the middle dose works nowhere.
    promising = finalists if best.dropped else [best.place]
    _completions(loads, deciding, study, _other_doses(study, promising), sides, phases)
    loads.free()
    return _record(study, loads, works, joint, finalists, len(sides["harmful"]))


def _of_these(steps: FinishedSteps, study: Study, sides: Sides, train: Sides) -> FinishedSteps:
    """The steps of these texts and this judge. With others, no step is the same."""
    return steps.within(repr((sides, train)), study.judges[0], str(get_judge(study.judges[0]).version))


def _record(
    study: Study,
    loads: Loads,
    works: "Sequence[_ArmWork]",
    joint: Sequence[SelectedPlace],
    finalists: Sequence[Place],
    instructions: int,
) -> SelectionRecord:
    """The choice from everything that was measured. Raises `WorkError` if no place has an effect without damage."""
    tried = _tried(works)
    places = chosen_place(study, joint, finalists, tried)
    best = places[0]
    if best.dropped or best.change is None:
        raise WorkError(_no_place(places))
    doses, coefficients = chosen_doses(study, best.place, tried)
    return SelectionRecord(
        judge=result_names(study.judges[:1])[0],
        instructions=instructions,
        position=best.position,
        layer=best.layer,
        coefficients=coefficients,
        arms=tuple(work.facts for work in works),
        places=tuple(places),
        doses=tuple(doses),
        notes=tuple(notes_on(study, places, doses, coefficients, loads.n_layers)),
        fingerprints=loads.fingerprints,
    )


def _all_unedited(loads: Loads, ready: Ready, sides: Sides, phases: Phases, steps: FinishedSteps) -> list[_ArmWork]:
    """What every arm answers without an edit, and why some do not decide."""
    study = loads.study
    works: list[_ArmWork] = []
    for name in study.checkpoints:
        with loads.checkpoint(name) as checkpoint:
            for arm in (one for one in ready.plan.arms_of(name) if not one.spelling):
                own = steps.within(checkpoint.fingerprint, arm.name)
                works.append(_unedited(checkpoint, arm, study, sides, phases, own))
    most = max(work.facts.harmful for work in works)
    for work in works:
        if work.facts.harmful < max(LEAST_REFUSALS, HALF * most):
            hardly = "it hardly refuses harmful instructions"
            why = hardly if work.facts.harmful < LEAST_REFUSALS else "it refuses less than half as often as another arm"
            work.facts = work.facts.model_copy(update={"problem": why})
    return works


def _unedited(checkpoint: Checkpoint, arm: Arm, study: Study, sides: Sides, phases: Phases, steps: FinishedSteps) -> _ArmWork:
    """What an arm answers without an edit."""
    prompt = prompt_format(arm.spec, checkpoint, name=arm.prompt, control_tokens=study.control_tokens, system=arm.system)

    def complete() -> list[Outcome]:
        made = unedited(checkpoint, sides, prompt, judge_name=study.judges[0], max_new_tokens=study.max_new_tokens)
        return [made[label] for label in LABELS]

    with phases(f"refusals of {arm.name}", None):
        found = steps.done(TypeAdapter(list[Outcome]), ("unedited",), complete, lambda: None)
    before = dict(zip(LABELS, found, strict=True))
    facts = SelectionArm(arm=arm.name, harmful=before["harmful"].refusals, harmless=before["harmless"].refusals)
    return _ArmWork(arm, prompt, before, facts, steps)


def _effects(checkpoint: Checkpoint, work: _ArmWork, study: Study, train: Sides, sides: Sides, phases: Phases) -> None:
    """Measure the effect of every place in an arm, and store it in the arm's work; or why that cannot be done."""
    with phases(f"candidates of {work.arm.name}", sum(map(len, train.values()))) as progress:
        position = study.direction.position
        candidates = candidate_directions(
            checkpoint,
            train["harmful"],
            train["harmless"],
            work.prompt,
            positions=None if isinstance(position, str) else [position],
            estimator=study.direction.estimator,
            progress=progress,
        )
    candidates = _asked_places(candidates, study, checkpoint.n_layers)
    work.means = trial_means(checkpoint, study, train, candidates.positions, work.prompt, phases)
    if len(candidates.directions) == 1:
        # There is nothing to compare; only doses are open.
        work.candidates, work.effects = candidates, {place: PlaceEffect(1.0, 0) for place in candidates.directions}
        return
    try:
        tokens = _refusal_tokens(checkpoint, work, study, train, phases)
        trials = trials_of(study, work.means)
        total = rows_of_rounds(len(candidates.directions), len(sides["harmful"]), trials, FINALISTS)
        with phases(f"effects in {work.arm.name}", total) as progress:
            work.effects = place_effects(
                checkpoint,
                candidates,
                trials,
                sides,
                work.prompt,
                tokens.ids,
                kl_most=study.selection.kl,
                finalists=FINALISTS,
                progress=progress,
                steps=work.steps,
            )
    except WorkError as error:
        work.facts = work.facts.model_copy(update={"problem": str(error)})
        return
    work.candidates, work.facts = candidates, work.facts.model_copy(update={"tokens": tokens.texts})


def _refusal_tokens(checkpoint: Checkpoint, work: _ArmWork, study: Study, train: Sides, phases: Phases) -> RefusalTokens:
    harmful, harmless = (train[label][:TOKEN_TEXTS] for label in LABELS)
    n = len(harmful) + len(harmless)
    with phases(f"refusal tokens of {work.arm.name}", n) as progress:
        find = partial(
            find_refusal_tokens,
            checkpoint,
            harmful,
            harmless,
            work.prompt,
            judge_name=study.judges[0],
            max_new_tokens=study.max_new_tokens,
            progress=progress,
        )
        return work.steps.done(TypeAdapter(RefusalTokens), ("tokens",), find, partial(progress, n))


def _asked_places(candidates: Candidates, study: Study, n_layers: int) -> Candidates:
    """The candidates at the layers that the study allows."""
    if study.direction.layers != SELECT:
        asked = set(study.direction.places)
    else:
        asked = set(study.selection.layers or (layer for layer in range(n_layers) if not late(layer, n_layers, LAST_LAYERS)))
    directions = {place: found for place, found in candidates.directions.items() if place[1] in asked}
    return Candidates(candidates.positions, directions, candidates.harmful, candidates.harmless)


_Key = tuple[Place, int, float]
"""A place, the number of an intervention, and its coefficient."""


def _middle_doses(study: Study, places: Sequence[Place]) -> list[_Key]:
    """Every deciding intervention at these places, with the middle one of its doses."""
    found = [(place, number, doses_of(study, number)) for place in places for number in deciding_numbers(study)]
    return [(place, number, middle_of(doses)) for place, number, doses in found]


def _other_doses(study: Study, places: Sequence[Place]) -> list[_Key]:
    """The same with every other dose."""
    return [
        (place, number, dose)
        for place in places
        for number in deciding_numbers(study)
        for dose in doses_of(study, number)
        if dose != middle_of(doses_of(study, number))
    ]


def _tried(works: Sequence[_ArmWork]) -> list[Tried]:
    return [Tried(work.before, work.tried) for work in works if work.candidates is not None]


def _completions(
    loads: Loads, works: Sequence[_ArmWork], study: Study, keys: Sequence[_Key], sides: Sides, phases: Phases
) -> None:
    """Judge completions of some trials in every arm that decides, and store them in the arm's work."""
    for work in loads.last_first(works) if keys else ():
        with loads.checkpoint(work.arm.checkpoint) as checkpoint:
            _complete(checkpoint, work, study, keys, sides, phases)


def _complete(checkpoint: Checkpoint, work: _ArmWork, study: Study, keys: Sequence[_Key], sides: Sides, phases: Phases) -> None:
    assert work.candidates is not None
    trials = [
        (trial_of(study, number, coefficient, work.means), work.candidates.directions[place])
        for place, number, coefficient in keys
    ]
    total = sum(len(sides[trial.instructions]) for trial, _ in trials)
    with phases(f"completions of {work.arm.name}", total) as progress:
        found = outcomes(
            checkpoint,
            trials,
            sides,
            work.prompt,
            judge_name=study.judges[0],
            max_new_tokens=study.max_new_tokens,
            progress=progress,
            steps=work.steps.within([[*place, number, dose] for place, number, dose in keys]),
        )
    work.tried |= dict(zip(keys, found, strict=True))


def _nobody_decides(works: Sequence[_ArmWork]) -> str:
    said = "; ".join(f"{work.arm.name}: {work.facts.problem}, refuses {100 * work.facts.harmful:.0f} %" for work in works)
    return (
        f"nothing can be selected by effect, because no checkpoint shows one ({said}); give direction.layers and the "
        "coefficients, or choose a layer with demur select --by separation"
    )


def _no_place(places: Sequence[SelectedPlace]) -> str:
    best = next((place for place in places if place.change is not None), places[0])
    return (
        f"no layer has an effect without damage; the best is layer {best.layer} at position {best.position} ({best.dropped}). "
        "Raise selection.kl, allow other layers with selection.layers, or give direction.layers"
    )
