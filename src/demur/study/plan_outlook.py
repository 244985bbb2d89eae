"""Estimates the cost of a study before anything is loaded: cells, tokens, loads, memory, and about how long it takes.

Reads no weights. A size that is not in the files on this machine is None; it is not guessed.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from demur.inputs.prompt_formats import needs_tokenizer, template_text
from demur.measurements.measurement import measurement, without_pairs
from demur.models import memory_budget
from demur.models.model_size import Size, size_of
from demur.models.prepacked_weights import bytes_prepacked
from demur.models.sources import Source
from demur.study import cost
from demur.study.cost import Job
from demur.study.load_order import Step, loads, most_at_once, order_jobs
from demur.study.plan import Arm, Plan, make_plan
from demur.study.planned_tasks import PlannedTask, planned_tasks
from demur.study.preflight import Material, check_what_is_here
from demur.study.selected_settings import for_planning, open_keys, selection_rows
from demur.study.spec import Study

TOKENS_A_WORD = 1.2
"""Rough number of tokens for a word of an English instruction; no tokenizer is loaded for a plan."""

NATIVE_TOKENS = 30
"""Rough number of tokens that a chat template writes around an instruction."""

MEASURED_SECONDS = 0.3
"""How long each of the machine's two rates is measured."""

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
        free: free memory now.
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
    """About how long the study takes on this machine.

    Attributes:
        low: seconds, at least.
        high: seconds, at most.
        operations: operations a second that the machine does now in the study's precision.
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

    @property
    def loads(self) -> int:
        """How often weights are read."""
        return loads(self.steps)


def look_ahead(study: Study, device: str = "auto") -> PlanOutlook:
    """Estimate the cost of a study on this machine, from names and files.

    Args:
        study: the study.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `spread`.

    Returns:
        The outlook.

    Raises:
        InputError: for an unknown device, and for everything that a run refuses as far as the files on this machine tell.
    """
    from demur.models.device_placement import find_device  # imports torch

    selects = open_keys(study)
    study = for_planning(study)
    plan = make_plan(study)
    used = str(find_device(device) or find_device("auto"))
    template = {arm: _template_tokens(arm) for arm in plan.arms}
    here = check_what_is_here(plan)
    sources = here.sources
    pairless = (said for one in study.measurements for said in without_pairs(measurement(one.name), len(study.checkpoints)))
    warnings = (*here.warnings, *pairless)
    checkpoints = tuple(_checkpoint(study, name, sources.get(name)) for name in study.checkpoints)
    sizes = [each.bytes for each in checkpoints]
    together = None not in sizes and sum(size or 0 for size in sizes) <= memory_budget.available(device)
    steps = order_jobs(planned_tasks(plan), (), together=together)
    words = {name: _words(here.material.get(name)) for name in study.sets}
    jobs = {
        each.name: _job(study, plan, each.name, each.size, words, template, steps, bool(selects))
        for each in checkpoints
        if each.size is not None
    }
    complete = len(jobs) == len(checkpoints)
    return PlanOutlook(
        plan=plan,
        checkpoints=checkpoints,
        completions=plan.rows(),
        tokens=_tokens(study, plan, words, template),
        unread=tuple(study.instructions[name].source for name in study.sets if name not in here.material),
        steps=tuple(steps),
        memory=_memory(study, jobs, complete, steps, device, memory_budget.kind_of(used)) if jobs else None,
        time=_time(study, jobs, used) if complete else None,
        warnings=warnings,
        selects=selects,
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
    lengths = [template[cell.target] + TOKENS_A_WORD * words[cell.instructions].mean for cell in cells]
    return Job(
        size=size,
        rows=sum(counts) + (selection_rows(study, size.layers) * len(plan.arms_of(name)) if selects else 0),
        prompt=sum(count * length for count, length in zip(counts, lengths, strict=True)) / sum(counts),
        longest=max(template[cell.target] + TOKENS_A_WORD * words[cell.instructions].longest for cell in cells),
        read=2 * study.direction.pairs * len(plan.arms_of(name)),
        loads=sum(step.action == "load" and step.checkpoint == name for step in steps) + selects,
        quantise=study.checkpoints[name].quantise,
    )


def _memory(
    study: Study, jobs: Mapping[str, Job], complete: bool, steps: list[Step[PlannedTask]], device: str, kind: str
) -> MemoryOutlook:
    each = {name: cost.memory_of(job, study, kind) for name, job in jobs.items()}
    needs, weights = list(each.values()), most_at_once(steps, {name: need.weights for name, need in each.items()})
    plain = [job.size for job in jobs.values() if not (job.quantise or job.size.already)]
    prepacked = max((bytes_prepacked(size.packable, study.dtype, device, still_to_load=weights) for size in plain), default=0)
    caches = [need.cache for need in needs if need.cache is not None]
    extra = [need.activations for need in needs if need.activations is not None]
    both = bool(caches and extra)
    return MemoryOutlook(
        weights=weights,
        prepacked=prepacked,
        cache=max(caches) if both else None,
        activations=max(extra) if both else None,
        free=memory_budget.free(device),
        complete=complete,
    )


def _time(study: Study, jobs: Mapping[str, Job], device: str) -> TimeOutlook:
    import torch

    from demur.study.throughput import measure_rates

    rates = measure_rates(getattr(torch, study.dtype), torch.device(device), MEASURED_SECONDS)
    kind = memory_budget.kind_of(device)
    low, high = cost.seconds(list(jobs.values()), study, rates, kind)
    return TimeOutlook(low, high, rates.operations, measured=kind != "cuda")
