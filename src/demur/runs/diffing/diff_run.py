"""What fine-tuning changed, in one call: a study's checkpoints with the measurements of pairs, and without its edits."""

from collections.abc import Callable
from pathlib import Path

from pydantic import JsonValue

from demur.core.errors import InputError
from demur.core.progress import Phases, no_phases
from demur.measurements.measurement import Measurement, measurement
from demur.models.freed_memory import returned_at_once
from demur.runs.growing.larger_study import check_folder
from demur.runs.run import Run
from demur.runs.runner import run
from demur.study.plan import make_plan
from demur.study.preflight import check
from demur.study.selected_settings import open_keys
from demur.study.spec import Study
from demur.study.study_files import as_study

MEASUREMENTS = ("patching", "weight-swaps", "amplification", "attribution", "difference-lens", "divergence")
"""The measurements of pairs, in the order of the page."""

EDITS = ("interventions", "claims", "controls", "published")
"""The keys of a study that are about its edits."""


def diff(
    study: Study | str | Path,
    *,
    out: str | Path | None = None,
    device: str = "auto",
    fresh: bool = False,
    phases: Phases = no_phases,
    tell: Callable[[str], object] = lambda _: None,
) -> Run:
    """Measure what fine-tuning changed between the checkpoints of a study.

    The checkpoints answer without an edit, their directions are read, and the measurements of pairs are made: see `docs/diff.md`.
    Edits of the study are left out, unless the folder holds a run with them. The same call resumes a run that was interrupted.

    Args:
        study: the study, from `demur.load_study`; or the name of a preset, or a TOML file. It needs two checkpoints or more.
        out: the run folder; `runs/NAME-diff` unless given. If it holds a run of the study, the measurements are added to that.
        device: `auto` for the first GPU, else the CPU; or `cpu`, `cuda`, `cuda:1`, `spread`.
        fresh: start over in a folder that holds a run.
        phases: shows progress.
        tell: called with a sentence of what is reused and new if the folder holds a run.

    Returns:
        The finished run. `run.summary()["changed"]` is the argument, and `run.summary()["diff"]` has the numbers.

    Raises:
        InputError: if the study has a fault or fewer than two checkpoints, or the folder holds another study.
        WorkError: if the work fails; what was finished is kept, and the same call resumes from there.

    Example:
        These lines load the demo checkpoint, so they are not run as a doctest.

        >>> import demur
        >>> run = demur.diff("demo", out="runs/demo-diff")  # doctest: +SKIP
        >>> [step["answer"] for step in run.summary()["changed"]]  # doctest: +SKIP
    """
    whole = as_study(study)
    folder = Path(f"runs/{whole.name}-diff" if out is None else out)
    # With two checkpoints in memory, none should be lost to what is kept for later.
    with returned_at_once():
        return run(diff_study(whole, None if fresh else folder), folder, device=device, fresh=fresh, phases=phases, tell=tell)


def diff_study(study: Study, folder: Path | None = None) -> Study:
    """The study that `diff` runs.

    Args:
        study: the study.
        folder: the run folder, which may hold a run.

    Returns:
        The study with the measurements of pairs; those that it names itself keep their settings. Its edits and its other
        measurements are left out, unless the folder holds a run with them, or its layer is chosen by what the edits do.

    Raises:
        InputError: if it has fewer than two checkpoints.
    """
    if len(study.checkpoints) < 2:
        raise InputError(
            f"the study {study.name!r} has one checkpoint, but what fine-tuning changed is measured between two; add the other "
            "one under [checkpoints]"
        )
    plain = study.model_dump(mode="json", exclude_unset=True)
    own: list[JsonValue] = [one.model_dump(mode="json", exclude_unset=True) for one in study.measurements]
    asked = {one.name for one in study.measurements}
    added: list[JsonValue] = [{"name": name} for name in MEASUREMENTS if name not in asked]
    larger = study.model_validate({**plain, "measurements": [*own, *added]})
    if open_keys(study):
        return larger
    without = {key: value for key, value in plain.items() if key not in EDITS}
    pairs = [one for one, spec in zip(own, study.measurements, strict=True) if _is_of_diff(measurement(spec.name))]
    smaller = study.model_validate({**without, "controls": {"random": 0}, "measurements": [*pairs, *added]})
    return smaller if folder is None or _goes_on(smaller, folder) else larger


def _is_of_diff(found: Measurement) -> bool:
    """Whether a measurement is part of what fine-tuning changed: those of pairs, and those that say so."""
    return bool(getattr(found, "one_format", False) or getattr(found, "of_diff", False))


def _goes_on(study: Study, folder: Path) -> bool:
    """Whether a folder can hold a run of this study: it is empty, or has this study or a smaller one."""
    try:
        check_folder(study, check(make_plan(study)), folder)
    except InputError:
        return False
    return True
