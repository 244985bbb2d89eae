"""Keeps what a run selected, and the finished steps of a selection that was stopped, so that a run goes on where it was."""

import platform

from pydantic import JsonValue

from demur.core.progress import Phases, no_phases
from demur.core.versions import versions
from demur.measurements.selection.finished_steps import FinishedSteps
from demur.models.device_placement import find_device
from demur.runs.selecting.effect_selection import select_by_effect
from demur.runs.store import Store
from demur.study.preflight import Ready
from demur.study.selected_settings import with_selected
from demur.study.spec import Study

STEPS = "selection_steps"
"""The entry of a run with the finished steps. It is removed with the last one."""


def selected_study(study: Study, ready: Ready, store: Store, *, device: str = "auto", phases: Phases = no_phases) -> Study:
    """The study with its open settings selected, now or when the run began.

    A selection that was stopped goes on: what it has measured is stored after every step, in rounds and kinds of instructions.

    Args:
        study: the study with open keys.
        ready: its checked plan.
        store: the run folder, where the selection is kept.
        device: where checkpoints are loaded.
        phases: shows progress.

    Returns:
        The study without open keys.

    Raises:
        InputError: if there are too few validation instructions.
        WorkError: if nothing can be selected.
    """
    found = store.selection()
    if found is None:
        found = select_by_effect(study, ready, device=device, phases=phases, steps=_stored_steps(study, store, device))
        store.remember_selection(found)
        store.forget(STEPS)
    return with_selected(study, layer=found.layer, position=found.position, coefficients=found.coefficients)


def _stored_steps(study: Study, store: Store, device: str) -> FinishedSteps:
    """The steps that are stored, if they were made for this study and on such a machine; all others are dropped."""
    # Another machine or version rounds differently, so its steps would not give what one selection gives.
    made_for: JsonValue = [study.digest, str(find_device(device)), platform.platform(), dict(versions())]
    stored = store.recall(STEPS)
    known = stored.get("steps") if isinstance(stored, dict) and stored.get("made_for") == made_for else None
    return FinishedSteps(
        found={key: str(result) for key, result in known.items()} if isinstance(known, dict) else {},
        save=lambda steps: store.remember(STEPS, {"made_for": made_for, "steps": dict(steps)}),
    )
