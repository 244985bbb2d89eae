"""Estimates the cost of a study before anything is loaded: cells, tokens, loads, memory, and about how long it takes.

Reads no weights. A size that is not in the files on this machine is None; it is not guessed. The time is that on this machine, or
on a device that is only known from its data sheet.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from demur.core.errors import InputError
from demur.inputs.prompt_formats import needs_tokenizer, template_text
from demur.measurements.measurement import measurement, without_pairs
from demur.models import memory_budget
from demur.models.model_size import Size, size_of
from demur.models.prepacked_weights import bytes_prepacked
from demur.models.sources import Source
from demur.study import cost
from demur.study.cost import Job
from demur.study.load_order import Step, loads, most_at_once, order_jobs
from demur.study.machines.data_sheets import DataSheet
from demur.study.machines.fetch_outlook import FetchOutlook, fetch_outlook
from demur.study.machines.measured_prompts import measured_prompts
from demur.study.machines.planned_machine import Machine, machine_of
from demur.study.machines.worker_outlook import WorkersOutlook, worker_outlook
from demur.study.plan import Arm, Plan, make_plan
from demur.study.planned_tasks import PlannedTask, planned_tasks
from demur.study.preflight import Material, check_what_is_here
from demur.study.selected_settings import for_planning, open_keys, selection_rows
from demur.study.spec import Study

if TYPE_CHECKING:
    from demur.study.throughput import Rates

MOST_WORKERS = 1000
"""More workers are not planned for."""

TOKENS_A_WORD = 1.2
"""Rough number of tokens for a word of an English instruction; no tokenizer is loaded for a plan."""

NATIVE_TOKENS = 30
"""Rough number of tokens that a chat template writes around an instruction."""

_PIECES = re.compile(r"<[^<>\s]+>|\w+|[^\w\s]|\n")


@dataclass(frozen=True)
class Words:
    """How many words a test instruction has: the mean, and the number of the longest."""

    mean: float | int
    longest: float | int


USUAL_WORDS = Words(12.0, 25.0)
"""The numbers of words that are assumed if an instruction set cannot be read on this machine."""


@dataclass(frozen=True)
class CheckpointOutlook:
    """The known facts about a checkpoint.

    Attributes:
        name: its name in the study.
        size: its number of weights; None if not known.
        bytes: bytes of its weights as the study loads them; None if not known.
        found: whether it is on this machine or on a hub that can be reached.
    """

    name: str
    size: Size | None
    bytes: int | None
    found: bool


@dataclass(frozen=True)
class MemoryOutlook:
    """The memory that the study needs at once, in bytes.

    Attributes:
        weights: of the checkpoints that are loaded together.
        prepacked: of the prepacked copy of one checkpoint's weights; 0 if none is made.
        cache: of the KV cache of the largest batch; None if not known.
        activations: of the temporary values of one forward pass; None if not known.
        free: free memory now; of another device, all of its memory.
        complete: whether the sizes of all checkpoints are known.
    """

    weights: int
    prepacked: int
    cache: int | None
    activations: int | None
    free: int
    complete: bool

    @property
    def total(self) -> int:
        """The sum of all parts that are known."""
        return self.weights + self.prepacked + (self.cache or 0) + (self.activations or 0)


@dataclass(frozen=True)
class TimeOutlook:
    """About how long the study takes on one device.

    Attributes:
        low: seconds, at least.
        high: seconds, at most.
        operations: operations a second in the study's precision: what this machine does now, or the peak of another device.
        measured: whether the range was checked against runs on such a device.
    """

    low: float
    high: float
    operations: float
    measured: bool


@dataclass(frozen=True)
class PlanOutlook:
    """The plan of a study with its estimated cost.

    Attributes:
        plan: its arms, directions and cells.
        checkpoints: the known facts about each checkpoint, in the order of the study.
        completions: number of completions to generate.
        tokens: number of tokens, prompts included.
        unread: sources of instructions that cannot be read on this machine.
        steps: loads, tasks and frees in the order in which a run does them.
        memory: None where no checkpoint's size is known.
        time: None where a checkpoint's size is not known.
        warnings: what a reader should know, in sentences.
        selects: the settings that the run selects first; the plan has other values in their place.
        device: the device that was planned for, if it is not this machine's.
        workers: how the study is spread over several workers; None if that was not asked for, or if a size is not known.
        too_large: the checkpoints whose weights alone take more than the memory of the device.
        fetch: what has to be fetched from the model hub; None if everything is on this machine, or if no hub can be reached.
    """

    plan: Plan
    checkpoints: tuple[CheckpointOutlook, ...]
    completions: int
    tokens: float
    unread: tuple[str, ...]
    steps: tuple[Step[PlannedTask], ...]
    memory: MemoryOutlook | None
    time: TimeOutlook | None
    warnings: tuple[str, ...]
    selects: tuple[str, ...] = ()
    device: DataSheet | None = None
    workers: WorkersOutlook | None = None
    too_large: tuple[str, ...] = ()
    fetch: FetchOutlook | None = None

    @property
    def loads(self) -> int:
        """How often weights are read."""
        return loads(self.steps)


def look_ahead(study: Study, device: str = "auto", workers: int | None = None) -> PlanOutlook:
    """Estimate the cost of a study on this machine, from names and files; or on a device that is not here, from its data sheet.

    Args:
        study: the study.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `spread`, or the name of a device in `DATA_SHEETS`.
        workers: the number of workers over which the study is spread, each with such a device.

    Returns:
        The outlook.

    Raises:
        InputError: for an unknown device or number of workers, and for everything that a run refuses as far as the files on this
            machine tell.
    """
    if workers is not None and not 1 <= workers <= MOST_WORKERS:
        raise InputError(f"a study cannot be planned for {workers} workers; give a number from 1 to {MOST_WORKERS}")
    machine = machine_of(device)
    selects = open_keys(study)
    study = for_planning(study)
    plan = make_plan(study)
    template = {arm: _template_tokens(arm) for arm in plan.arms}
    here = check_what_is_here(plan)
    sources = here.sources
    arms = [arm.checkpoint for arm in plan.main_arms]
    pairless = (said for one in study.measurements for said in without_pairs(measurement(one.name), arms))
    warnings = (*here.warnings, *pairless)
    checkpoints = tuple(_checkpoint(study, name, sources.get(name)) for name in study.checkpoints)
    sizes = [each.bytes for each in checkpoints]
    free = machine.free()
    together = None not in sizes and sum(size or 0 for size in sizes) <= free * memory_budget.SHARE
    steps = order_jobs(planned_tasks(plan), (), together=together)
    words = {name: _words(here.material.get(name)) for name in study.sets}
    jobs = {
        each.name: _job(study, plan, each.name, each.size, words, template, steps, bool(selects))
        for each in checkpoints
        if each.size is not None
    }
    rates = machine.rates(study.dtype) if len(jobs) == len(checkpoints) else None
    budget = int(free * memory_budget.SHARE)
    return PlanOutlook(
        plan=plan,
        checkpoints=checkpoints,
        completions=plan.rows(),
        tokens=_tokens(study, plan, words, template),
        unread=tuple(study.instructions[name].source for name in study.sets if name not in here.material),
        steps=tuple(steps),
        memory=_memory(study, jobs, rates is not None, steps, machine, free) if jobs else None,
        time=None if rates is None else _time(study, jobs, rates, machine.kind),
        warnings=warnings,
        selects=selects,
        device=machine.sheet,
        workers=None if workers is None or rates is None else worker_outlook(plan, jobs, rates, machine.kind, workers, budget),
        too_large=tuple(each.name for each in checkpoints if each.bytes is not None and each.bytes > free),
        fetch=fetch_outlook(study, sources),
    )


def _checkpoint(study: Study, name: str, source: Source | None) -> CheckpointOutlook:
    spec = study.checkpoints[name]
    if source is not None:
        size = size_of(source)
    else:
        # The number of weights in linear maps is not known. Nearly all weights are in them, so all are counted.
        count = None if spec.parameters is None else int(spec.parameters)
        size = None if count is None else Size(total=count, blocks=count, linear=count)
    return CheckpointOutlook(name, size, None if size is None else size.bytes(study.dtype, spec.quantise), source is not None)


def _words(material: Material | None) -> Words:
    """Words of the test instructions of one set; `USUAL_WORDS` if the set cannot be read."""
    counts = [len(row.split()) for row in material.test] if material is not None else []
    return Words(sum(counts) / len(counts), max(counts)) if counts else USUAL_WORDS


def _template_tokens(arm: Arm) -> int:
    """About how many tokens a format writes around an instruction. Raises `InputError` for a format that does not exist."""
    said = len(_PIECES.findall(arm.system or ""))
    if needs_tokenizer(arm.spec):
        return NATIVE_TOKENS + said
    return len(_PIECES.findall(template_text(arm.spec).replace("{instruction}", " "))) + said


def _tokens(study: Study, plan: Plan, words: Mapping[str, Words], template: Mapping[Arm, int]) -> float:
    return sum(
        study.instructions[cell.instructions].test
        * (words[cell.instructions].mean * TOKENS_A_WORD + template[cell.target] + study.max_new_tokens)
        for cell in plan.cells
    )


def _job(
    study: Study,
    plan: Plan,
    name: str,
    size: Size,
    words: Mapping[str, Words],
    template: Mapping[Arm, int],
    steps: list[Step[PlannedTask]],
    selects: bool,
) -> Job:
    cells = plan.of(name)
    counts = [study.instructions[cell.instructions].test for cell in cells]
    selecting = [arm for arm in plan.main_arms if arm.checkpoint == name]
    lengths = [template[cell.target] + TOKENS_A_WORD * words[cell.instructions].mean for cell in cells]
    return Job(
        size=size,
        rows=sum(counts) + (selection_rows(study, size.layers) * len(selecting) if selects else 0),
        prompt=sum(count * length for count, length in zip(counts, lengths, strict=True)) / sum(counts),
        longest=max(template[cell.target] + TOKENS_A_WORD * words[cell.instructions].longest for cell in cells),
        read=2 * study.direction.pairs * len(study.direction.seeds) * len(plan.arms_of(name)),
        loads=sum(step.action == "load" and step.checkpoint == name for step in steps) + selects,
        measured=measured_prompts(plan, name, size.layers),
        quantise=study.checkpoints[name].quantise,
    )


def _memory(
    study: Study, jobs: Mapping[str, Job], complete: bool, steps: list[Step[PlannedTask]], machine: Machine, free: int
) -> MemoryOutlook:
    each = {name: cost.memory_of(job, study, machine.kind) for name, job in jobs.items()}
    needs, weights = list(each.values()), most_at_once(steps, {name: need.weights for name, need in each.items()})
    plain = [job.size for job in jobs.values() if not (job.quantise or job.size.already)]
    device = machine.asked if machine.sheet is None else machine.used
    prepacked = max((bytes_prepacked(size.packable, study.dtype, device, still_to_load=weights) for size in plain), default=0)
    caches = [need.cache for need in needs if need.cache is not None]
    extra = [need.activations for need in needs if need.activations is not None]
    both = bool(caches and extra)
    return MemoryOutlook(
        weights=weights,
        prepacked=prepacked,
        cache=max(caches) if both else None,
        activations=max(extra) if both else None,
        free=free,
        complete=complete,
    )


def _time(study: Study, jobs: Mapping[str, Job], rates: "Rates", kind: str) -> TimeOutlook:
    low, high = cost.seconds(list(jobs.values()), study, rates, kind)
    return TimeOutlook(low, high, rates.operations, measured=kind != "cuda")
