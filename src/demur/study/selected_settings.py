"""Settings that a run selects: which keys a study leaves open, the study with what was selected, and a study for planning.

A key is open where its value is "select": `direction.layers`, `direction.position`, and the `coefficient` of an intervention.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from demur.core.errors import InputError
from demur.interventions.edit_kind import action_of, edit_kind
from demur.models.compatibility import shape
from demur.models.sources import find_model
from demur.study.spec import LABELS, Label, Study
from demur.study.spec_fields import ALL, SELECT

DOSES: Mapping[str, tuple[float, ...]] = {
    "raw": (0.5, 1.0, 1.5, 2.0, 3.0),
    "residual": (0.1, 0.2, 0.35, 0.5, 0.75),
}
"""The coefficients that are tried for each unit, unless the study gives its own. For `unit` there is no usual size."""


FINALISTS = 4
"""Places whose completions are judged."""

TOKEN_TEXTS = 48
"""Training instructions of each kind whose completions show how refusals begin."""


def open_keys(study: Study) -> tuple[str, ...]:
    """The dotted keys that a run has to select, in the order of the study; empty if there are none."""
    place = [f"direction.{key}" for key in ("layers", "position") if getattr(study.direction, key) == SELECT]
    doses = [
        f"interventions.{number}.coefficient" for number, spec in enumerate(study.interventions) if spec.coefficient == SELECT
    ]
    return (*place, *doses)


def doses_of(study: Study, number: int) -> tuple[float, ...]:
    """The coefficients that are tried for one intervention: one if the study gives it, else those of its unit."""
    spec = study.interventions[number]
    if spec.coefficient != SELECT:
        return (spec.dose or 0.0,)
    return tuple(sorted(study.selection.doses or DOSES.get(spec.unit, ())))


@dataclass(frozen=True)
class OpenedStudy:
    """A study whose layers and doses are open.

    Attributes:
        study: the study. Interventions that differ only in their dose are one intervention in it.
        places: for each intervention of the study that was opened, its number in `study`.
    """

    study: Study
    places: tuple[int, ...]


def all_open(study: Study) -> OpenedStudy:
    """The same study with its layers open, and every coefficient in a unit of usual size.

    Example:
        >>> from demur.study.study_files import load_study
        >>> opened = all_open(load_study("demo", ["interventions.1.coefficient=[1.0, 2.0]"]))
        >>> [edit.coefficient for edit in opened.study.interventions], opened.places
        ([None, 'select', None], (0, 1, 1, 2))
    """
    edits = [
        spec.model_copy(update={"coefficient": SELECT})
        if spec.coefficient is not None and (spec.unit in DOSES or study.selection.doses)
        else spec
        for spec in study.interventions
    ]
    different = [edit for number, edit in enumerate(edits) if edit not in edits[:number]]
    place = study.direction.model_copy(update={"layers": SELECT})
    opened = study.model_copy(update={"direction": place, "interventions": different, "split": "test"})
    return OpenedStudy(opened, tuple(map(different.index, edits)))


def check_open_keys(study: Study) -> None:
    """Check that everything that is open can be selected.

    Raises:
        InputError: if an edit has a gate; if no edit of the study shows the effect of a place; if a coefficient is open for
            several layers, or in a unit without usual sizes; if the study reads at another site than the candidates, or tests
            on the validation split.
    """
    for number, spec in enumerate(study.interventions):
        key = f"interventions.{number}.coefficient"
        if spec.when is not None and open_keys(study):
            raise InputError(
                f"interventions.{number} has a gate, but {open_keys(study)[0]} is to be selected, and a selection tries edits "
                "without gates; select the settings first, or leave when out"
            )
        if spec.coefficient != SELECT:
            continue
        if not doses_of(study, number):
            raise InputError(f'{key} is "select" in units of {spec.unit!r}, which have no usual size; give selection.doses')
        if study.direction.layers != SELECT and len(study.direction.places) > 1:
            raise InputError(f'{key} is "select", which needs one layer; direction.layers has {len(study.direction.places)}')
    if study.direction.layers == SELECT and study.direction.site != "resid_pre":
        raise InputError(
            f'direction.layers is "select", which reads candidates at resid_pre, but direction.site is {study.direction.site!r}; '
            "leave the site out, or give the layers"
        )
    if study.split == "validation" and open_keys(study):
        raise InputError(
            f'{open_keys(study)[0]} is "select", which uses the validation instructions, so split cannot be "validation"; '
            "leave split out, or give the setting"
        )
    open_places = [key for key in open_keys(study) if key.startswith("direction.")]
    if open_places and not any(deciding_label(study, number) for number in range(len(study.interventions))):
        raise InputError(
            f'{open_places[0]} is "select", but no intervention of this study shows what a layer does; add one, such as '
            'kind = "ablate", or give the layer'
        )


def deciding_label(study: Study, number: int) -> tuple[Label, int] | None:
    """The instruction set on which an intervention should change refusals, and the sign of that change; None if there is none.

    Ablation to zero does not decide beside an affine edit on the same instructions: the study's claims rest on the affine edit.
    Candidates are single directions, so a kind that takes several shows nothing of them.
    """
    found = _expected_change(study, number)
    if found is not None and study.interventions[number].kind == "ablate":
        beside = (other for other, spec in enumerate(study.interventions) if spec.kind == "affine")
        if any(_expected_change(study, other) == found for other in beside):
            return None
    return found


def _expected_change(study: Study, number: int) -> tuple[Label, int] | None:
    spec = study.interventions[number]
    kind = edit_kind(spec.kind)
    if kind.artefact != "direction":
        return None
    dose = max(doses_of(study, number), default=0.0) if kind.takes_dose else None
    action = action_of(kind, dose, spec.settings)
    found = [(label, kind.expected(action, label)) for label in LABELS if label in spec.on]
    return next(((label, sign) for label, sign in found if sign), None)


def selection_rows(study: Study, n_layers: int | None) -> int:
    """About how many completions take as long as the selection in one arm, at most. An arm that hardly refuses takes less.

    Args:
        study: the study, open or with values for planning.
        n_layers: the layers of the checkpoint; 32 if not known.
    """
    n, layers = study.selection.instructions, len(study.selection.layers or range(n_layers or 32))
    trials = [number for number in range(len(study.interventions)) if deciding_label(study, number)]
    # Each round halves the places and doubles the instructions. A row without new tokens takes about half as long.
    effects = layers * (len(trials) + 1) * max(8, n // 2)
    # The other doses are tried at one place only.
    completions = n * sum(FINALISTS + len(doses_of(study, one)) - 1 for one in trials)
    return 2 * n + TOKEN_TEXTS * 2 + effects // 2 + completions


def with_selected(study: Study, *, layer: int, position: int, coefficients: Mapping[int, float]) -> Study:
    """The study with the selected settings in place of "select". Settings that were given stay.

    Args:
        study: the study.
        layer: the selected layer.
        position: the selected position.
        coefficients: the selected coefficient of each intervention that was open, by its number.
    """
    place = {"layers": [layer], "position": position}
    chosen = {key: value for key, value in place.items() if getattr(study.direction, key) == SELECT}
    edits = [
        spec.model_copy(update={"coefficient": coefficients[number]}) if spec.coefficient == SELECT else spec
        for number, spec in enumerate(study.interventions)
    ]
    return study.model_copy(update={"direction": study.direction.model_copy(update=chosen), "interventions": edits})


def with_all_layers(study: Study) -> Study:
    """The study with numbers in place of `direction.layers = "all"`, from the configs of its checkpoints.

    These are all layers; at `resid_pre` all but the first, whose input at a template token is the same for every instruction.

    Args:
        study: the study. One that names its layers is returned as it is.

    Raises:
        InputError: if no config can be read, or if no layer is left.
    """
    if study.direction.layers != ALL:
        return study
    found = []
    for spec in study.checkpoints.values():
        known = shape(find_model(spec.model, spec.revision))
        found += [] if known is None else [known[0]]
    if not found:
        raise InputError(
            'direction.layers is "all", but no checkpoint of the study says in its config how many layers it has; give a list'
        )
    layers = list(range(1 if study.direction.site == "resid_pre" else 0, min(found)))
    if not layers:
        raise InputError('direction.layers is "all", but the only layer has no direction at resid_pre; give another site')
    return study.model_copy(update={"direction": study.direction.model_copy(update={"layers": layers})})


def for_planning(study: Study) -> Study:
    """The study with a value for every open key, so that its cells can be counted before the selection is made.

    The values affect names of cells, not their number. A study without open keys is returned as it is, but for `layers = "all"`.
    """
    study = with_all_layers(study)
    if not open_keys(study):
        return study
    check_open_keys(study)
    coefficients = {number: doses_of(study, number)[0] for number in range(len(study.interventions))}
    return with_selected(study, layer=0, position=-1, coefficients=coefficients)
