"""Tries every edit of a study with every direction of the same arm, on validation instructions, and finds the cleanest ones.

It is a run of the same study on its validation split, without null directions and without moving directions between arms, so a
folder that keeps it can be resumed, and its page can be read.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import JsonValue

from demur.analysis.edit_front import Bounds, EditFront, edit_fronts
from demur.analysis.summary import Summary
from demur.core.errors import InputError
from demur.core.progress import Phases, no_phases
from demur.inputs.prompt_edits import is_edited
from demur.interventions.edit_kind import action_of, edit_kind
from demur.study.plan import Arm, make_plan
from demur.study.selected_settings import doses_of, with_all_layers
from demur.study.shorthand.arm_names import are_named
from demur.study.spec import LABELS, InterventionSpec, Study, make_study
from demur.study.spec_fields import SELECT

HARMLESS = 0.1
"""By how much a valid edit may change the refusal rate of harmless instructions, unless a caller says otherwise."""


def select_front(
    study: Study,
    *,
    out: Path | None = None,
    kl: float | None = None,
    harmless: float = HARMLESS,
    device: str = "auto",
    phases: Phases = no_phases,
) -> EditFront:
    """Find the cleanest edits of a study.

    Args:
        study: the study, with layers and position given; an open layer is tried at every layer of `selection.layers`.
        out: the folder of the run on validation instructions; a temporary one unless given.
        kl: the most that a valid edit may change the next token after harmless instructions, in nats; by default
            `selection.kl`.
        harmless: the most that it may change the refusal rate of harmless instructions.
        device: where checkpoints are loaded.
        phases: shows progress.

    Returns:
        The edits of every arm, which of them are on the front, and the best valid one.

    Raises:
        InputError: if the study leaves the layers or the position open, or has no edit that could lower refusals.
    """
    from demur.runs.runner import run  # imports torch once the study is known to be sound

    tried = front_study(study)
    bounds = Bounds(kl=study.selection.kl if kl is None else kl, harmless=harmless)
    with TemporaryDirectory() as folder:
        finished = run(tried, Path(folder) / "front" if out is None else out, device=device, phases=phases)
        summary = Summary.model_validate(finished.summary())
        finished.close()
    judge = next(iter(summary.judges))
    arms = edit_fronts(summary.cells, summary.doses.coherence, judge, bounds)
    return EditFront(judge=judge, instructions=study.selection.instructions, bounds=bounds, arms=arms)


def front_study(study: Study) -> Study:
    """The study that is run: the edits of another study that could lower refusals, each in the arm of its direction.

    Args:
        study: the other study.

    Raises:
        InputError: as `select_front`.
    """
    study = with_all_layers(study)
    layers, position = study.direction.layers, study.direction.position
    if layers == SELECT:
        layers = study.selection.layers or []
    if not layers or position == SELECT:
        key = "position" if layers else "layers"
        raise InputError(
            f'direction.{key} is "select", and each would have to be run with every edit; give direction.{key}'
            + ("" if layers else " or selection.layers")
        )
    data: dict[str, JsonValue] = study.model_dump(mode="json")
    direction = {**study.direction.model_dump(mode="json"), "layers": layers, "resamples": 0}
    placed = make_study({**data, "direction": direction, "interventions": []}, f"study {study.name!r}")
    edits = [each for arm in make_plan(placed).main_arms for each in _edits(study, arm)]
    if not edits:
        raise InputError(
            'the study has no edit that could lower refusals of harmful instructions; add one, such as kind = "affine"'
        )
    checkpoints = {
        name: {**spec.model_dump(mode="json"), "prompts": [one for one in spec.prompts if not is_edited(one)]}
        for name, spec in study.checkpoints.items()
    }
    sets = {
        label: {**study.instructions[label].model_dump(mode="json"), "test": study.selection.instructions} for label in LABELS
    }
    return make_study(
        {
            **data,
            "checkpoints": checkpoints,
            "instructions": sets,
            "direction": direction,
            "interventions": edits,
            "claims": None,
            "controls": {"random": 0},
            "judges": study.judges[:1],
            "measurements": ["coherence"],
            "sections": [],
            "published": [],
            "split": "validation",
        },
        f"study {study.name!r}",
    )


def _edits(study: Study, arm: Arm) -> list[dict[str, JsonValue]]:
    """The edits of one arm with its own directions, one for each dose, that are not expected to raise refusals."""
    found = []
    for number, spec in enumerate(study.interventions):
        asked = all(are_named(names, arm.checkpoint, arm.prompt) for names in (spec.sources, spec.targets))
        kind = edit_kind(spec.kind)
        if kind.artefact == "none" or not asked:
            continue
        doses = doses_of(study, number) if kind.takes_dose else (None,)
        own = {"sources": [arm.name], "targets": [arm.name], "on": list(LABELS)}
        found += [{**spec.model_dump(mode="json"), **own, "coefficient": dose} for dose in doses if not _raises(spec, dose)]
    return found


def _raises(spec: InterventionSpec, dose: float | None) -> bool:
    kind = edit_kind(spec.kind)
    action = action_of(kind, dose, spec.settings)
    return any(kind.expected(action, label) > 0 for label in LABELS)
