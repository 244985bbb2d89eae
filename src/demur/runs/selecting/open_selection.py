"""Selects the layer and every dose of a study by effect, also those that the study gives: what `demur select` does."""

from collections.abc import Sequence

from demur.analysis.selection_record import SelectionRecord
from demur.core.progress import Phases, no_phases
from demur.study.plan import make_plan
from demur.study.preflight import check
from demur.study.selected_settings import all_open, for_planning
from demur.study.spec import Study


def select_everything(
    study: Study, numbers: Sequence[int], *, device: str = "auto", phases: Phases = no_phases
) -> SelectionRecord:
    """Select the layer and every dose of a study by effect.

    Args:
        study: the study.
        numbers: what each of its interventions is called in the result. Those with the same number get the same dose.
        device: where checkpoints are loaded.
        phases: shows progress.

    Returns:
        What was selected.

    Raises:
        InputError: if the study has a fault that can be found before weights are read.
        WorkError: if nothing can be selected.
    """
    opened = all_open(study)
    ready = check(make_plan(for_planning(opened.study)))
    from demur.runs.selecting.effect_selection import select_by_effect  # imports torch, so the faults are told before

    found = select_by_effect(opened.study, ready, device=device, phases=phases)
    names: dict[int, list[int]] = {}
    for place, number in zip(opened.places, numbers, strict=True):
        names.setdefault(place, []).append(number)
    return found.renumbered({place: list(dict.fromkeys(given)) for place, given in names.items()})
