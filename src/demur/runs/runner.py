"""Runs a study in a folder: checks it, carries it out, judges the completions and writes the report.

The same call again resumes where the last one stopped and repeats nothing. Importing this module does not import torch, so that
a study that cannot be run is refused at once.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from demur.core.errors import InputError, nearest
from demur.core.progress import Phases, no_phases
from demur.runs.growing.kept_names import with_kept_names
from demur.runs.growing.larger_study import check_folder, go_on
from demur.runs.run import Run
from demur.runs.store import Store
from demur.study.plan import make_plan
from demur.study.preflight import Ready, check
from demur.study.selected_settings import for_planning, open_keys, with_all_layers
from demur.study.spec import Study
from demur.study.study_files import as_study

if TYPE_CHECKING:
    from demur.engine.checkpoints import Checkpoint
    from demur.runs.executors.executor import Executor
    from demur.runs.partial_results import Partial


def _nothing(_told: object) -> None:
    """For callers who do not ask."""


def run(
    study: Study | str | Path,
    out: str | Path,
    *,
    device: str = "auto",
    fresh: bool = False,
    phases: Phases = no_phases,
    executor: "Executor | None" = None,
    notes: Sequence[str] = (),
    checkpoints: "Mapping[str, Checkpoint] | None" = None,
    tell: Callable[[str], object] = _nothing,
    show: "Callable[[Partial], object] | None" = None,
    max_cost: float | None = None,
    free_disk: bool = False,
) -> Run:
    """Run a study in a folder, or resume it where it stopped. A study that only adds to the one in the folder goes on there.

    Args:
        study: the study, from `demur.load_study`; or the name of a preset, or a TOML file.
        out: the run folder; it is created if missing.
        device: `auto` for the first GPU, else the CPU; or `cpu`, `cuda`, `cuda:1`, `spread`.
        fresh: start over in a folder that holds a run.
        phases: shows progress; nothing is shown unless given.
        executor: runs the jobs; this process unless given.
        notes: sentences for readers of the results, stored with the run.
        checkpoints: loaded checkpoints by their names in the study; the others are loaded. Their fingerprints are stored.
        tell: called with a sentence of what is reused and new if the study adds to the run, and of names that the run keeps.
        show: called with what is known while the run works; see `demur.runs.partial_results`.
        max_cost: the most that the requests of each judge that asks a server may cost, instead of what its file says.
        free_disk: delete weights that this run fetches from a model hub after the last job that needs them.

    Returns:
        The finished run.

    Raises:
        InputError: if the study has a fault (found before weights are read if possible), or the folder another study or weights.
        WorkError: if the work fails; what was finished by then is kept.

    Example:
        >>> import demur
        >>> study = demur.load_study("demo", ["instructions.harmful.test=10"])
        >>> finished = demur.run(study, out="runs/demo")  # doctest: +SKIP

        The last line loads a checkpoint.
    """
    study = _written_out(study, Path(out), fresh, tell)
    if checkpoints:
        executor = _with_given(study, checkpoints, executor, free_disk)
    ready = check(make_plan(for_planning(study)))
    if not fresh:
        check_folder(study, ready, Path(out))
    # Imported only now, because torch and transformers take seconds to import.
    from demur.models.device_placement import find_device
    from demur.runs.executors.in_process import InProcess

    find_device(device)
    executor = executor or InProcess(free_disk=free_disk)
    store = Store.create(Path(out), study.digest, study.toml(), fresh=fresh, check_study=partial(go_on, study, ready, tell))
    try:
        return _finish(study, ready, store, device, phases, executor, notes, show, max_cost)
    except BaseException:
        store.close()
        raise


def _written_out(study: Study | str | Path, out: Path, fresh: bool, tell: Callable[[str], object]) -> Study:
    """The study with its layers as numbers, and with the names that the run folder has for its prompt formats."""
    found = with_all_layers(as_study(study))
    return found if fresh else with_kept_names(found, out, tell)


def _finish(
    study: Study,
    ready: Ready,
    store: Store,
    device: str,
    phases: Phases,
    executor: "Executor",
    notes: Sequence[str],
    show: "Callable[[Partial], object] | None",
    max_cost: float | None,
) -> Run:
    """Do whatever is missing in the folder, write the report, and let other processes write in the folder again."""
    from demur.runs.describe import describe
    from demur.runs.driver import carry_out
    from demur.runs.partial_results import PartialResults
    from demur.runs.selecting.selection_store import selected_study

    # If an earlier call was killed before it stored its study, it has made nothing, so its entry can be overwritten.
    if not store.begun or store.recall("deciding") is None:
        store.remember("deciding", study.deciding())
    if open_keys(study):
        ready = check(make_plan(selected_study(study, ready, store, device=device, phases=phases)))
    describe(ready, store)
    store.warn(notes)
    finished = Run(store)
    watch = _nothing if show is None else PartialResults(ready, store, finished.judges(), show)
    carry_out(ready, store, executor, device=device, phases=phases, watch=watch)
    with phases("verdicts and report", 1) as progress:
        finished.report(max_cost=max_cost)
        progress(1)
    store.release()
    return finished


def _with_given(study: Study, given: "Mapping[str, Checkpoint]", executor: "Executor | None", free_disk: bool) -> "Executor":
    """The executor that uses loaded checkpoints, if they fit the study."""
    from demur.inputs.handed.handed_arguments import check_checkpoint
    from demur.runs.executors.in_process import InProcess

    if executor is not None:
        raise InputError("checkpoints and executor are both given; loaded checkpoints are used in this process only")
    if open_keys(study):
        raise InputError(
            f'{open_keys(study)[0]} is "select", and a selection loads its checkpoints itself; give the setting, or leave '
            "checkpoints out"
        )
    for name, checkpoint in given.items():
        if name not in study.checkpoints:
            raise InputError(f"checkpoints has {name!r}, which the study does not have; {nearest(name, study.checkpoints)}")
        check_checkpoint(checkpoint)
        asked = study.checkpoints[name]
        wanted = (study.engine, study.dtype, asked.quantise is not None, asked.adapter is not None)
        dtype = str(checkpoint.dtype).removeprefix("torch.")
        found = (checkpoint.engine.name, dtype, checkpoint.quantised is not None, checkpoint.adapter is not None)
        if found != wanted:
            raise InputError(
                f"the checkpoint {name!r} in memory is not loaded as the study says: (engine, dtype, quantised, with adapter) is "
                f"{found}, and the study has {wanted}"
            )
    return InProcess(given, free_disk=free_disk)
