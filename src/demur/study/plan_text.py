"""A plan's outlook in lines of text, as `demur plan` prints it."""

import re
import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from demur.core.number_format import in_bytes
from demur.interventions.edit_kind import edit_kind
from demur.study.cost import in_words
from demur.study.machines.data_sheets import DataSheet
from demur.study.machines.fetch_outlook import FetchOutlook
from demur.study.machines.worker_outlook import WorkersOutlook
from demur.study.machines.worker_spread import WorkerDay
from demur.study.plan import Plan
from demur.study.plan_outlook import CheckpointOutlook, MemoryOutlook, PlanOutlook, TimeOutlook, look_ahead
from demur.study.spec import InterventionSpec, Study
from demur.study.study_files import as_study

MOST_SHOWN = 16
"""At most so many workers are listed one by one."""


class ReadableOutlook(PlanOutlook):
    """An outlook that prints as `demur plan` prints it."""

    def __str__(self) -> str:
        return "\n".join(plan_lines(self))

    def __repr__(self) -> str:
        return str(self)


def plan(study: Study | str | Path, *, device: str = "auto", workers: int | None = None) -> ReadableOutlook:
    """The size and cost of a study on this machine or another one, without loading weights.

    Args:
        study: a study, the name of a preset, or a TOML file.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `spread` for this machine; or a device that is not here, such as `h100`.
        workers: over how many workers the study is spread, each with such a device; None for one, as `demur.run` works.

    Returns:
        The outlook, which prints as `demur plan` does: `plan` with its arms, directions and cells, `completions` and `tokens`
        (how many), `loads`, `memory` (bytes), `time` (seconds), `workers` and `warnings`.

    Raises:
        InputError: for an unknown preset, device or prompt format, and for checkpoints that cannot be compared.

    Example:
        >>> import demur
        >>> outlook = demur.plan(demur.load_study("demo", ["instructions.harmful.test=10"]))
        >>> len(outlook.plan.cells), outlook.completions
        (14, 680)
    """
    found = look_ahead(as_study(study), device, workers)
    return ReadableOutlook(**{field.name: getattr(found, field.name) for field in fields(found)})


def plan_lines(outlook: PlanOutlook) -> Iterator[str]:
    """The lines of an outlook. They have at most 80 columns, unless a name is longer.

    Args:
        outlook: a plan with its estimated cost.

    Yields:
        The lines, without line ends.
    """
    study = outlook.plan.study
    open_doses = {int(key.split(".")[1]) for key in outlook.selects if key.endswith(".coefficient")}
    yield from textwrap.wrap(f"{study.name}: {study.summary}" if study.summary else study.name, 80)
    yield ""
    yield from _totals(outlook)
    yield from _checkpoints(outlook)
    yield from _directions(outlook)
    if study.interventions:
        yield ""
        yield "interventions"
    for number, edit in enumerate(study.interventions):
        yield from textwrap.wrap(_intervention(edit, number in open_doses), 80, initial_indent="  ", subsequent_indent="    ")


def _totals(outlook: PlanOutlook) -> Iterator[str]:
    """The size and the cost of the whole study, and what its reader should know."""
    study = outlook.plan.study
    if outlook.selects:
        yield from _wrapped(
            f"selects  {', '.join(outlook.selects)}, on {study.selection.instructions} validation instructions of each kind"
        )
    yield f"cells    {len(outlook.plan.cells)}, with {outlook.completions:,} completions of up to {study.max_new_tokens} tokens"
    yield f"tokens   about {float(f'{outlook.tokens:.2g}'):,.0f}, prompts included"
    if outlook.unread:
        names = " and ".join(map(repr, outlook.unread))
        yield from _wrapped(f"         assuming instructions of a usual length, because {names} cannot be read here")
    if outlook.fetch is not None:
        yield from _fetch(outlook.fetch)
    yield f"loads    {outlook.loads} for {len(outlook.checkpoints)} checkpoints"
    yield from _wrapped(f"order    {', '.join(_steps(outlook))}")
    yield from _memory(outlook.memory, outlook.device)
    for name in outlook.too_large:
        size = next(each.bytes for each in outlook.checkpoints if each.name == name) or 0
        advice = "name a larger device, or add --quantise 8bit"
        yield from _wrapped(f"         {name} does not fit: its weights alone take {_gib(size)}; {advice}")
    yield from _time(outlook.time, study.dtype, outlook.device)
    if outlook.workers is not None:
        yield from _workers(outlook.workers, outlook.plan)
    for warning in outlook.warnings:
        yield from _wrapped(f"note     {warning}")


def _fetch(fetch: FetchOutlook) -> Iterator[str]:
    """What has to be fetched from the model hub, and whether the disk has room for it."""
    each = ", ".join(f"{name} {in_bytes(count)}" for name, count in fetch.bytes.items())
    room = "" if fetch.total <= fetch.free else f", but the disk of its cache has only {in_bytes(fetch.free)} free"
    yield from _wrapped(f"fetch    {in_bytes(fetch.total)} from {fetch.host} that is not on this machine yet: {each}{room}")


def _steps(outlook: PlanOutlook) -> Iterator[str]:
    """Every step in words. Tasks that need no weights take almost no time, so they are left out."""
    for step in outlook.steps:
        if step.job is None:
            yield f"{step.action} {step.checkpoint}"
        elif step.job.weights:
            yield step.job.key


def _checkpoints(outlook: PlanOutlook) -> Iterator[str]:
    yield ""
    yield "checkpoints"
    study = outlook.plan.study
    width = max(map(len, study.checkpoints))
    for each in outlook.checkpoints:
        spec = study.checkpoints[each.name]
        yield f"  {each.name:{width}}  {spec.model}"
        indent = " " * (width + 4)
        if spec.adapter:
            yield f"{indent}+ {spec.adapter}"
        prompts = ", ".join(arm.prompt for arm in outlook.plan.arms_of(each.name) if not arm.spelling)
        line = f"{_size(each, study)}; prompt{'s' if ',' in prompts else ''} {prompts}"
        yield from textwrap.wrap(line, 80, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def _size(checkpoint: CheckpointOutlook, study: Study) -> str:
    where = "" if checkpoint.found else ", not on this machine"
    if checkpoint.size is None or checkpoint.bytes is None:
        return f"size unknown{where}"
    quantise = study.checkpoints[checkpoint.name].quantise
    precision = study.dtype if quantise is None else f"{quantise} and {study.dtype}"
    return f"{checkpoint.size.total / 1e6:,.0f}M weights, {_gib(checkpoint.bytes)} in {precision}{where}"


def _directions(outlook: PlanOutlook) -> Iterator[str]:
    place, directions = outlook.plan.study.direction, outlook.plan.directions
    yield ""
    position = "selected" if "direction.position" in outlook.selects else place.position
    seeds = ", ".join(map(str, place.pairs_seed or ()))
    drawn = f", drawn with the seed{'s' if len(place.seeds) > 1 else ''} {seeds}" if seeds else ""
    yield f"directions, read at {place.site}, position {position}, of {place.pairs} pairs{drawn}"
    shown = [direction for direction in directions if direction.own and not direction.arm.spelling]
    width = max(len(direction.name) for direction in shown)
    for direction in directions:
        if direction in shown:
            layer = "selected" if "direction.layers" in outlook.selects else f"{direction.layer:2}"
            yield f"  {direction.name:{width}}  layer {layer}  from {direction.arm.name}"
    spellings = outlook.plan.spelling_cells
    if spellings:
        arms = dict.fromkeys(cell.target.name for cell in spellings)
        line = f"{len(arms)} arms with a small edit of their prompt, only without an edit of the stream: {len(spellings)} cells, "
        line += f"{outlook.plan.rows(spellings):,} completions; a direction of each is compared"
        yield from textwrap.wrap(line, 80, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)
    if place.resamples:
        yield from _resamples(outlook.plan)
    controls = Counter(direction.control_name for direction in directions if direction.control)
    for kind, count in controls.items():
        arms = dict.fromkeys(each.arm.name for each in directions if each.control_name == kind)
        each = f"{count // len(arms)} for each of {', '.join(arms)}" if count % len(arms) == 0 and len(arms) > 1 else "in all"
        line = f"{count} {kind} control{'s' if count > 1 else ''}, with the norms of the directions: {each}"
        if len(arms) == 1:
            line = f"{count} {kind} control{'s' if count > 1 else ''} for {next(iter(arms))}, same norm"
        yield from textwrap.wrap(line, 80, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)


def _resamples(plan: Plan) -> Iterator[str]:
    """How many directions are made again from resamples of the training pairs, and what that costs."""
    cells = tuple(cell for cell in (*plan.cells, *plan.null_cells) if cell.resampled)
    number = plan.study.direction.resamples
    rows = f"{plan.rows(cells):,} completions" if plan.study.direction.resample_completions else "only the refusal probability"
    line = f"each from {number} resamples of its training pairs too, for the edits under test: {len(cells)} cells, {rows}"
    yield from textwrap.wrap(line, 80, initial_indent="  ", subsequent_indent="    ")


def _intervention(edit: InterventionSpec, selected: bool) -> str:
    kind = edit_kind(edit.kind)
    dose = "" if edit.dose is None else f" {'a selected multiple' if selected else f'{edit.dose:g}'} x {edit.unit}"
    settings = "".join(f", {key} {value}" for key, value in edit.settings.items() if value is not None)
    settings += "" if edit.when is None else ", with a gate"
    sites = ", ".join(edit.sites) if edit.sites else ("its own site" if kind.own_layer else "all sites and layers")
    whose = "every direction" if edit.sources is None else f"directions of {', '.join(edit.sources)}"
    what = f"at {sites}" if kind.artefact == "none" else f"{whose} at {sites}"
    return f"{edit.kind}{dose}{settings}: {what}, on {' and '.join(edit.on)} instructions"


def _memory(memory: MemoryOutlook | None, device: DataSheet | None) -> Iterator[str]:
    if memory is None:
        yield "memory   not known, because the size of no checkpoint is known"
        return
    parts = [f"weights {_gib(memory.weights)}"]
    if memory.prepacked:
        parts.append(f"prepacked copy {_gib(memory.prepacked)}")
    if memory.cache is not None and memory.activations is not None:
        parts += [f"KV cache {_gib(memory.cache)}", f"activations {_gib(memory.activations)}"]
    else:
        parts.append("KV cache and activations not known without the config")
    of = f"{_gib(memory.free)} free" if device is None else f"the {_gib(memory.free)} of one {device.title}"
    yield from _wrapped(f"memory   about {_gib(memory.total)} of {of}: {', '.join(parts)}")
    if memory.weights < memory.free < memory.total:
        yield from _wrapped("         more than there is, so a run halves its batches until they fit, which takes longer")
    if not memory.complete:
        yield "         without the checkpoints whose size is not known"


def _time(time: TimeOutlook | None, dtype: str, device: DataSheet | None) -> Iterator[str]:
    if time is None:
        yield "time     not known, because the size of a checkpoint is not known"
        return
    if device is not None:
        yield from _wrapped(
            f"time     {in_words(time.low, time.high)} on one {device.title}, estimated from peaks of the {device.source}: "
            f"{time.operations / 1e12:,.0f} TFLOP/s in {dtype}, {device.bandwidth:,} GB/s. No program reaches these, and demur "
            "was not measured on a GPU, so this is an order of magnitude"
        )
        return
    speed = time.operations / 1e9
    rate = f"{speed:,.0f}" if speed >= 10 else f"{speed:.2g}"
    yield from _wrapped(f"time     {in_words(time.low, time.high)} on this machine, now at {rate} GFLOP/s in {dtype}")
    if not time.measured:
        yield "         a rough guess, because no run on a GPU was measured"


def _workers(outlook: WorkersOutlook, plan: Plan) -> Iterator[str]:
    spread = outlook.spread
    count, days = len(spread.workers), list(zip(spread.workers, outlook.bytes, strict=True))
    yield from _wrapped(
        f"workers  {count}, each with a device of its own: {in_words(outlook.low, outlook.high)}, {spread.loads} loads, "
        f"{100 * spread.idle:.0f} % of the workers' time idle"
    )
    used = [(number, each, size) for number, (each, size) in enumerate(days, 1) if each.loads]
    for number, worker, size in used[:MOST_SHOWN]:
        yield from textwrap.wrap(_worker(number, worker, size, plan), 80, initial_indent=" " * 9, subsequent_indent=" " * 12)
    if len(used) > MOST_SHOWN:
        most = max(size for *_, size in used[MOST_SHOWN:])
        yield f"         and {len(used) - MOST_SHOWN} more, each with up to {_gib(most)}"
    if len(used) < count:
        yield from _wrapped(f"         {count - len(used)} would have no work, because loading takes longer than it saves")


def _worker(number: int, worker: WorkerDay, size: int, plan: Plan) -> str:
    """What a worker does. Parts of one generation are one task in words; tasks that need no weights are left out."""
    cells: dict[str, int] = {}
    for task in worker.tasks:
        if task.weights:
            cells[task.key] = cells.get(task.key, 0) + task.cells
    wholes = {f"generate {name}": len(plan.of(name)) for name in plan.study.checkpoints}
    said = [key if some in (0, wholes.get(key)) else f"{key} ({some} of {wholes[key]} cells)" for key, some in cells.items()]
    return f"{number}: {_gib(size)}; loads {', '.join(worker.loads)}; {', '.join(said)}"


def _wrapped(line: str) -> list[str]:
    # A number and its unit stay on one line.
    tied = re.sub(r"(?<=\d) (?=[GM]iB)", "\N{NO-BREAK SPACE}", line)
    lines = textwrap.wrap(tied, 80, subsequent_indent=" " * 9, break_on_hyphens=False)
    return [each.replace("\N{NO-BREAK SPACE}", " ") for each in lines]


def _gib(count: float | int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 0.05 * 2**30 else f"{count / 2**20:.0f} MiB"
