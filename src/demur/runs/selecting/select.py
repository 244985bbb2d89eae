"""`demur.select`: layer, position and doses of a study, on validation instructions."""

from pathlib import Path
from typing import Literal, overload

from demur.analysis.edit_front import EditFront
from demur.analysis.selection_record import SelectionRecord
from demur.core.errors import InputError, nearest
from demur.core.progress import Phases, no_phases
from demur.measurements.selection.criteria import CRITERIA, FRONT
from demur.runs.selecting.front_selection import select_front
from demur.runs.selecting.open_selection import select_everything
from demur.runs.selecting.place_selection import Chosen, choose
from demur.study.spec import Study
from demur.study.study_files import as_study, intervention_numbers


@overload
def select(
    study: Study | str | Path, by: Literal["effect"] = "effect", *, device: str = "auto", phases: Phases = no_phases
) -> SelectionRecord: ...


@overload
def select(study: Study | str | Path, by: Literal["front"], *, device: str = "auto", phases: Phases = no_phases) -> EditFront: ...


@overload
def select(
    study: Study | str | Path,
    by: Literal["arditi", "cosmic", "separation"],
    *,
    device: str = "auto",
    phases: Phases = no_phases,
) -> list[Chosen]: ...


def select(
    study: Study | str | Path, by: str = "effect", *, device: str = "auto", phases: Phases = no_phases
) -> SelectionRecord | EditFront | list[Chosen]:
    """Choose layer, position and doses of a study, on validation instructions. The study is not changed.

    Args:
        study: a study, the name of a preset, or a TOML file.
        by: `effect` measures what the study's own edits do, for all layers and doses; `front` compares the edits, estimators and
            layers that the study names by how clean they are; `arditi`, `cosmic` and `separation` choose a place for each arm.
        device: where checkpoints are loaded, as for `demur.run`.
        phases: shows progress; nothing is shown unless given.

    Returns:
        By effect, one record: `layer`, `position`, `coefficients` (intervention -> dose), and every measure. Interventions have
        the numbers of the study's file, where a list of coefficients is one intervention and gets one dose; if a `Study` is
        given, those of `study.interventions`. By front, the tried edits of each arm, and the best one of those that keep to the
        bounds, if there is one. By another criterion, one `Chosen` for each arm; its `selection.best` has `layer`
        and `position`, and `direction()` the direction.

    Raises:
        InputError: for an unknown criterion, and if the study has a fault that can be found before weights are read.
        WorkError: by effect, if no checkpoint refuses often enough, or if no place has an effect without damage.

    Example:
        >>> import demur
        >>> demur.select("demo", by="magic")
        Traceback (most recent call last):
        demur.core.errors.InputError: 'magic' is not a criterion; did you mean 'cosmic'?

        With checkpoints to load (not run as a doctest):

        >>> demur.select("demo").layer  # doctest: +SKIP
        17
    """
    if by not in CRITERIA:
        raise InputError(f"{by!r} is not a criterion; {nearest(by, CRITERIA)}")
    chosen = as_study(study)
    if by == FRONT:
        return select_front(chosen, device=device, phases=phases)
    if by != "effect":
        return list(choose(chosen, by, device=device, phases=phases))
    numbers = range(len(chosen.interventions)) if isinstance(study, Study) else intervention_numbers(study)
    return select_everything(chosen, numbers, device=device, phases=phases)
