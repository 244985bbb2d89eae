"""Keeps what a run selected, so that a run that goes on uses the same settings."""

from demur.core.progress import Phases, no_phases
from demur.runs.selecting.effect_selection import select_by_effect
from demur.runs.store import Store
from demur.study.preflight import Ready
from demur.study.selected_settings import with_selected
from demur.study.spec import Study


def selected_study(study: Study, ready: Ready, store: Store, *, device: str = "auto", phases: Phases = no_phases) -> Study:
    """The study with its open settings selected, now or when the run began.

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
        found = select_by_effect(study, ready, device=device, phases=phases)
        store.remember_selection(found)
    return with_selected(study, layer=found.layer, position=found.position, coefficients=found.coefficients)
