"""The edits that a selection tries: those of the study, with what they have to know of the arm in which they are tried."""

from collections.abc import Mapping, Sequence

from demur.core.progress import Phases
from demur.directions.direction import Direction
from demur.engine.checkpoints import Checkpoint
from demur.inputs.prompts import Prompt
from demur.interventions.edit_kind import edit_kind, needed_facts, typed_settings
from demur.interventions.intervention import Intervention
from demur.interventions.target_facts import NO_FACTS, TargetFacts
from demur.measurements.facts.leace_facts import stream_spreads
from demur.measurements.reference_means import stream_means_at
from demur.measurements.selection.effect import Trial
from demur.runs.execution import edit_of
from demur.runs.selecting.place_selection import Sides
from demur.study.selected_settings import deciding_label, doses_of
from demur.study.spec import LABELS, Study


def trials_of(study: Study, means: Mapping[int, TargetFacts]) -> list[Trial]:
    """One trial for each intervention that decides; an open dose stands at the middle of those that are tried.

    Args:
        study: the study.
        means: the means that its edits need, by the position of the direction.
    """
    trials = []
    for number in deciding_numbers(study):
        trials.append(trial_of(study, number, middle_of(doses_of(study, number)), means))
    return trials


def middle_of(doses: Sequence[float]) -> float:
    """The middle one of the doses that are tried."""
    return doses[len(doses) // 2]


def trial_of(study: Study, number: int, coefficient: float, means: Mapping[int, TargetFacts]) -> Trial:
    """The trial of one intervention at one dose, which is not used for a kind without a dose."""
    spec, decides = study.interventions[number], deciding_label(study, number)
    assert decides is not None
    dose = None if spec.coefficient is None else coefficient

    def make(direction: Direction) -> Intervention:
        norm = TargetFacts(residual_norm=direction.provenance.mean_residual_norm)
        return edit_of(spec, direction, dose).with_facts(means.get(direction.position, NO_FACTS).joined(norm))

    label, sign = decides
    return Trial(make, label, sign, sign < 0)


def trial_means(
    checkpoint: Checkpoint, study: Study, train: Sides, positions: Sequence[int], prompt: Prompt, phases: Phases
) -> dict[int, TargetFacts]:
    """What the trials of a study need to know, at each position of a candidate: means, and how activations vary at each layer.

    Nothing is read if they need none.

    Args:
        checkpoint: the loaded checkpoint, in which directions are tried.
        study: the study.
        train: its training instructions.
        positions: the positions of the candidates.
        prompt: the prompt format.
        phases: shows progress.
    """
    found: dict[int, TargetFacts] = {}
    for label in LABELS:
        if any(f"{label} means" in _facts(study, number) for number in deciding_numbers(study)):
            with phases(f"{label} means of {checkpoint.name}", len(train[label])) as progress:
                means = stream_means_at(checkpoint, train[label], prompt, positions, label=label, progress=progress)
            for one in means:
                found[one.position] = found.get(one.position, NO_FACTS).joined(TargetFacts.of_means(one))
    if any("spread" in _facts(study, number) for number in deciding_numbers(study)):
        for position in positions:
            with phases(f"activations of {checkpoint.name}", sum(map(len, train.values()))) as progress:
                spreads = stream_spreads(
                    checkpoint,
                    train["harmful"],
                    train["harmless"],
                    prompt,
                    layers=range(checkpoint.n_layers),
                    site=study.direction.site,
                    position=position,
                    progress=progress,
                )
            found[position] = found.get(position, NO_FACTS).joined(TargetFacts.of_means(*spreads))
    return found


def deciding_numbers(study: Study) -> list[int]:
    """The numbers of the interventions that are tried."""
    return [number for number in range(len(study.interventions)) if deciding_label(study, number) is not None]


def _facts(study: Study, number: int) -> tuple[str, ...]:
    spec = study.interventions[number]
    kind = edit_kind(spec.kind)
    return needed_facts(kind, spec.unit, typed_settings(kind, spec.settings))
