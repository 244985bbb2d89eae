"""Runs a study in a folder: checked first, then carried out, judged and reported.

The same call again goes on where the last one stopped and repeats nothing. Importing this file imports nothing heavy, so that a
study that cannot be run is refused at once.
"""

from functools import partial
from pathlib import Path

from demur.core.progress import Phases, no_phases
from demur.runs.run import Run, open_run
from demur.runs.store import Store
from demur.study.digest import differences, refusal
from demur.study.plan import make_plan
from demur.study.preflight import check
from demur.study.spec import Study

__all__ = ["Run", "open_run", "run"]


def run(
    study: Study,
    out: str | Path,
    *,
    device: str = "auto",
    fresh: bool = False,
    phases: Phases = no_phases,
) -> Run:
    """Run a study in a folder, or go on with it where it stopped.

    Raises `InputError` for anything that can be seen to be wrong before weights are read, `WorkError` where the work fails; what
    was finished by then is kept.
    """
    ready = check(make_plan(study))
    # Only now: torch and transformers take seconds to import.
    from demur.models.device_placement import find_device
    from demur.runs.execution import Work
    from demur.runs.manifest import describe

    find_device(device)
    store = Store.create(Path(out), study.digest, study.toml(), fresh=fresh, check_study=partial(refuse_another_study, study))
    try:
        if store.recall("deciding") is None:
            store.remember("deciding", study.deciding())
        describe(ready, store)
        Work(ready, store, device, phases).carry_out()
        finished = Run(store)
        with phases("verdicts and report", 1) as progress:
            finished.report()
            progress(1)
    finally:
        store.release()
    return finished


def refuse_another_study(study: Study, store: Store) -> None:
    """Check that a study can go on in a run folder that holds another digest, also one of an earlier version's rule.

    Raises:
        InputError: where a key that decides about results differs, with its name and both values.
    """
    stored = store.recall("study_facts")
    if stored is None:
        return  # the run was not begun, so that nothing was made under its study
    found = differences(study, stored, store.recall("deciding"))
    if found:
        raise refusal(found, str(store.folder))
