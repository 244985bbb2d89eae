"""Runs a study in a folder: checks it, carries it out, judges the completions and writes the report.

The same call again resumes where the last one stopped and repeats nothing. Importing this module does not import torch, so that
a study that cannot be run is refused at once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from warnings import warn

from demur.core.errors import InputError, nearest
from demur.core.progress import Phases, no_phases
from demur.runs.database.network_folder import network_note
from demur.runs.executors.chosen_executor import check_asked, chosen_executor
from demur.runs.growing.kept_names import with_kept_names
from demur.runs.growing.larger_study import check_folder, go_on
from demur.runs.judging_stored import judge_stored
from demur.runs.run import Run
from demur.runs.sharding.shard import Shard, ShardWork, remember_shard, shard_work
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
    from demur.runs.records import JobRecord


def _nothing(_told: object) -> None:
    """For callers who do not ask."""


def run(
    study: Study | str | Path,
    out: str | Path,
    *,
    device: str = "auto",
    fresh: bool = False,
    phases: Phases = no_phases,
    executor: "Executor | str | None" = None,
    workers: int | None = None,
    shard: str | None = None,
    judge_shard: bool = False,
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
        executor: runs the jobs: `local` (this process), `processes`, `ray`, or an `Executor`; by default this process, or one
            process for each GPU if there are several.
        workers: how many processes or Ray actors there are; one for each GPU unless given.
        shard: which part of the study to carry out, such as `3/8`; `demur.merge` joins the parts, and judges what is not judged.
        judge_shard: judge the completions of the shard here; `demur.merge` keeps the verdicts.
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
    asked = (device, fresh, phases, executor, workers, shard, judge_shard)
    options = _Options(*asked, tuple(notes), tell, show, max_cost, free_disk)
    return _carried_out(study, Path(out), options, checkpoints or {})


@dataclass(frozen=True)
class _Options:
    """How a study is carried out, as `run` describes it."""

    device: str
    fresh: bool
    phases: Phases
    executor: "Executor | str | None"
    workers: int | None
    shard: str | None
    judge_shard: bool
    notes: tuple[str, ...]
    tell: Callable[[str], object]
    show: "Callable[[Partial], object] | None"
    max_cost: float | None
    free_disk: bool


def _carried_out(study: Study | str | Path, out: Path, options: _Options, given: "Mapping[str, Checkpoint]") -> Run:
    check_asked(options.executor, options.workers, free_disk=options.free_disk)
    shard = None if options.shard is None else Shard.parsed(options.shard)
    if options.judge_shard and shard is None:
        raise InputError("--judge-shard is for the parts that --shard makes; a whole run is always judged, so leave it out")
    study = _written_out(study, out, options.fresh, options.tell)
    executor, workers = options.executor, options.workers
    if given:
        executor, workers = _with_given(study, given, executor or workers, options.free_disk), None
    ready = check(make_plan(for_planning(study)), judging=shard is None or options.judge_shard)
    work = None if shard is None else _work_of(study, ready, shard)
    if not options.fresh:
        check_folder(study, ready, out)
    # Imported only now, because torch and transformers take seconds to import.
    from demur.models.device_placement import find_device

    find_device(options.device)
    go_on_there = partial(go_on, study, ready, options.tell)
    store = Store.create(out, study.digest, study.toml(), fresh=options.fresh, check_study=go_on_there)
    if note := network_note(out):
        options.tell(note)
    try:
        remember_shard(store, shard, work=work)
        heard = options.tell if options.tell is not _nothing else warn
        runs_jobs = chosen_executor(executor, workers, options.device, heard, free_disk=options.free_disk)
        ready = _described(study, ready, store, options)
        _do_jobs(ready, store, runs_jobs, options, work)
        if shard is not None:
            remember_shard(store, shard, work=work, done=True)
            return _judged_shard(store, work, options)
        return _reported(store, options)
    except BaseException:
        store.close()
        raise


def _work_of(study: Study, ready: Ready, shard: Shard) -> ShardWork:
    if open_keys(study):
        raise InputError(
            f'{open_keys(study)[0]} is "select", and every shard would select anew; write the selected values into the study'
        )
    return shard_work(ready, shard)


def _written_out(study: Study | str | Path, out: Path, fresh: bool, tell: Callable[[str], object]) -> Study:
    """The study with its layers as numbers, and with the names that the run folder has for its prompt formats."""
    found = with_all_layers(as_study(study))
    return found if fresh else with_kept_names(found, out, tell)


def _described(study: Study, ready: Ready, store: Store, options: _Options) -> Ready:
    """Store what the run is, and select what the study leaves open."""
    from demur.runs.describe import describe
    from demur.runs.selecting.selection_store import selected_study

    # If an earlier call was killed before it stored its study, it has made nothing, so its entry can be overwritten.
    if not store.begun or store.recall("deciding") is None:
        store.remember("deciding", study.deciding())
    if open_keys(study):
        ready = check(make_plan(selected_study(study, ready, store, device=options.device, phases=options.phases)))
    describe(ready, store)
    store.warn(options.notes)
    return ready


def _do_jobs(ready: Ready, store: Store, executor: "Executor", options: _Options, work: ShardWork | None) -> None:
    """Do whatever is missing in the folder."""
    from demur.runs.driver import carry_out
    from demur.runs.partial_results import PartialResults

    watch: Callable[[JobRecord], object] = _nothing
    if options.show is not None and work is None:
        watch = PartialResults(ready, store, Run(store).judges(), options.show)
    carry_out(ready, store, executor, device=options.device, phases=options.phases, watch=watch, work=work)


def _reported(store: Store, options: _Options) -> Run:
    """Judge what has no verdict, write the report, and let other processes write in the folder again."""
    finished = Run(store)
    with options.phases("verdicts and report", 1) as progress:
        finished.report(max_cost=options.max_cost)
        progress(1)
    store.release()
    return finished


def _judged_shard(store: Store, work: ShardWork | None, options: _Options) -> Run:
    """Judge the shard's own completions, if that was asked for, and let other processes write in the folder again."""
    finished = Run(store)
    if options.judge_shard and work is not None:
        with options.phases("verdicts", 1) as progress:
            judge_stored(store, finished.judges(), options.max_cost, cells=work.cells)
            progress(1)
    store.release()
    return finished


def _with_given(study: Study, given: "Mapping[str, Checkpoint]", executor: object, free_disk: bool) -> "Executor":
    """The executor that uses loaded checkpoints, if they fit the study."""
    from demur.inputs.handed.handed_arguments import check_checkpoint
    from demur.runs.executors.in_process import InProcess

    if executor not in (None, "local"):
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
