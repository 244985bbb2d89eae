"""What a study comes to, in lines of text, before anything is loaded: cells, tokens, loads, memory and about how long it takes.

Reads no weights. What the files at hand do not tell is said not to be known.
"""

import re
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import suppress

from demur.core.errors import InputError
from demur.inputs.instructions import load_instructions
from demur.inputs.prompts import NATIVES, template_text
from demur.models import memory_budget
from demur.models.compatibility import compare
from demur.models.model_size import Size, size_of
from demur.models.prepacked_weights import bytes_prepacked
from demur.models.sources import Source, find_model
from demur.study import cost
from demur.study.cost import Job
from demur.study.plan import Plan, Step, loads, make_plan, order_steps
from demur.study.preflight import precisions
from demur.study.spec import LABELS, Study

TOKENS_A_WORD = 1.2
"""Rough number of tokens a word of an English instruction; a tokenizer is not loaded for a plan."""

NATIVE_TOKENS = 30
"""Rough number of tokens that a chat template writes around an instruction."""

USUAL_WORDS = (12.0, 25.0)
"""Mean and longest, where a set of instructions is not in reach."""

MEASURED_SECONDS = 0.3
"""How long each of the machine's two rates is measured."""

_PIECES = re.compile(r"<[^<>\s]+>|\w+|[^\w\s]|\n")


def outlook(study: Study, device: str = "auto") -> Iterator[str]:
    """The plan of a study in lines of at most 80 columns, as far as its names allow. Loads no weights."""
    from demur.models.device_placement import find_device

    plan = make_plan(study)
    on = str(find_device(device) or find_device("auto"))
    template = {arm.spec: _template_tokens(arm.spec) for arm in plan.arms}
    sources = _found(study)
    warnings = (*compare(sources), *precisions(study))
    sizes, notes = {}, {}
    for name in study.checkpoints:
        sizes[name], notes[name] = _size(study, name, sources.get(name))
    yield from textwrap.wrap(f"{study.name}: {study.summary}" if study.summary else study.name, 80)
    yield from _what(study, plan, notes)
    names = list(study.checkpoints)
    quantise = {name: spec.quantise for name, spec in study.checkpoints.items()}
    weights = {name: None if size is None else size.bytes(study.dtype, quantise[name]) for name, size in sizes.items()}
    steps = order_steps(names, names, weights, memory_budget.available(device))
    known = {label: _words(study, label) for label in LABELS}
    words: dict[str, tuple[float | int, float | int]] = {label: found or USUAL_WORDS for label, found in known.items()}
    jobs = {name: _job(study, plan, name, size, words, template, steps) for name, size in sizes.items() if size is not None}
    tokens = sum(
        study.instructions[cell.instructions].test
        * (words[cell.instructions][0] * TOKENS_A_WORD + template[cell.target.spec] + study.max_new_tokens)
        for cell in plan.cells
    )
    yield ""
    yield f"cells    {len(plan.cells)}, with {plan.rows():,} completions of up to {study.max_new_tokens} tokens"
    yield f"tokens   about {float(f'{tokens:.2g}'):,.0f}, prompts included"
    unread = [str(study.instructions[label].source) for label in LABELS if known[label] is None]
    if unread:
        yield from _wrapped(
            f"         with instructions of a usual length, for {' and '.join(map(repr, unread))} cannot be read here"
        )
    yield f"loads    {loads(steps)} for {len(names)} checkpoints"
    order = ", ".join(f"{step.action} {step.checkpoint}" for step in steps)
    yield from _wrapped(f"order    {order}")
    yield from _memory(study, jobs, sizes, steps, device, memory_budget.kind_of(on))
    yield from _time(study, jobs, sizes, on)
    for warning in warnings:
        yield from _wrapped(f"note     {warning}")


def _what(study: Study, plan: Plan, notes: Mapping[str, str]) -> Iterator[str]:
    """Checkpoints, directions and interventions."""
    yield ""
    yield "checkpoints"
    width = max(map(len, study.checkpoints))
    for name, spec in study.checkpoints.items():
        yield f"  {name:{width}}  {spec.model}"
        indent = " " * (width + 4)
        if spec.adapter:
            yield f"{indent}+ {spec.adapter}"
        prompts = ", ".join(arm.prompt for arm in plan.arms_of(name))
        line = f"{notes[name]}; prompt{'s' if ',' in prompts else ''} {prompts}"
        yield from textwrap.wrap(line, 80, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
    yield ""
    yield f"directions, read at {study.direction.site}, position {study.direction.position}, of {study.direction.pairs} pairs"
    width = max(len(direction.name) for direction in plan.directions)
    for direction in plan.directions:
        kind = f"random, same norm, beside {direction.arm.name}" if direction.control else f"from {direction.arm.name}"
        yield f"  {direction.name:{width}}  layer {direction.layer:2}  {kind}"
    if study.interventions:
        yield ""
        yield "interventions"
    for edit in study.interventions:
        dose = "" if edit.coefficient is None else f" {edit.coefficient:g} x {edit.unit}"
        sites = ", ".join(edit.sites) if edit.sites else ("all sites and layers" if edit.kind == "ablate" else "its own site")
        whose = "every direction" if edit.sources is None else f"directions of {', '.join(edit.sources)}"
        line = f"{edit.kind}{dose}: {whose} at {sites}, on {' and '.join(edit.on)} instructions"
        yield from textwrap.wrap(line, 80, initial_indent="  ", subsequent_indent="    ")


def _found(study: Study) -> dict[str, Source]:
    """The checkpoints that are in reach; a plan is shown without the others."""
    found = {}
    for name, spec in study.checkpoints.items():
        with suppress(InputError):
            found[name] = find_model(spec.model, spec.revision)
    return found


def _size(study: Study, name: str, source: Source | None) -> tuple[Size | None, str]:
    """A checkpoint's size, and what is to be said of it."""
    spec = study.checkpoints[name]
    where = "" if source is not None else ", not on this machine"
    if source is not None:
        size = size_of(source)
    else:
        # Which of them are linear maps is not known; nearly all are.
        count = None if spec.parameters is None else int(spec.parameters)
        size = None if count is None else Size(total=count, blocks=count, linear=count)
    if size is None:
        return None, f"size unknown{where}"
    precision = study.dtype if spec.quantise is None else f"{spec.quantise} and {study.dtype}"
    return size, f"{size.total / 1e6:,.0f}M weights, {_gib(size.bytes(study.dtype, spec.quantise))} in {precision}{where}"


def _words(study: Study, label: str) -> tuple[float | int, float | int] | None:
    """Words of a test instruction: mean and longest; None where the set cannot be read."""
    spec = study.instructions[label]  # type: ignore[index]
    try:
        counts = [len(row.split()) for row in load_instructions(spec.source).take(study.split)[: spec.test]]
    except InputError:
        # A plan is shown all the same.
        return None
    return sum(counts) / len(counts), max(counts)


def _template_tokens(spec: str) -> int:
    """About how many tokens a format writes around an instruction. Raises `InputError` for a format that does not exist."""
    return NATIVE_TOKENS if spec in NATIVES else len(_PIECES.findall(template_text(spec).replace("{instruction}", " ")))


def _job(
    study: Study,
    plan: Plan,
    name: str,
    size: Size,
    words: Mapping[str, tuple[float | int, float | int]],
    template: Mapping[str, int],
    steps: list[Step],
) -> Job:
    cells = plan.of(name)
    counts = [study.instructions[cell.instructions].test for cell in cells]
    lengths = [template[cell.target.spec] + TOKENS_A_WORD * words[cell.instructions][0] for cell in cells]
    return Job(
        size=size,
        rows=sum(counts),
        prompt=sum(count * length for count, length in zip(counts, lengths, strict=True)) / sum(counts),
        longest=max(template[cell.target.spec] + TOKENS_A_WORD * words[cell.instructions][1] for cell in cells),
        read=2 * study.direction.pairs * len(plan.arms_of(name)),
        loads=sum(step.action == "load" and step.checkpoint == name for step in steps),
        quantise=study.checkpoints[name].quantise,
    )


def _memory(
    study: Study, jobs: Mapping[str, Job], sizes: Mapping[str, Size | None], steps: list[Step], device: str, kind: str
) -> Iterator[str]:
    if not jobs:
        yield "memory   not known, because no checkpoint's size is"
        return
    needs = {name: cost.memory_of(job, study, kind) for name, job in jobs.items()}
    together = loads(steps) == len(sizes)
    held = sum(need.weights for need in needs.values()) if together else max(need.weights for need in needs.values())
    caches = [need.cache for need in needs.values() if need.cache is not None]
    extra = [need.activations for need in needs.values() if need.activations is not None]
    parts = [f"weights {_gib(held)}"]
    plain = [job.size for job in jobs.values() if not (job.quantise or job.size.already)]
    copies = [bytes_prepacked(size.packable, study.dtype, device, still_to_load=held) for size in plain]
    if any(copies):
        parts.append(f"packed {_gib(max(copies))}")
        held += max(copies)
    if caches and extra:
        parts += [f"cache {_gib(max(caches))}", f"activations {_gib(max(extra))}"]
        held += max(caches) + max(extra)
    else:
        parts.append("cache and activations not known without the config")
    yield from _wrapped(f"memory   about {_gib(held)} of {_gib(memory_budget.free(device))} free: {', '.join(parts)}")
    if any(size is None for size in sizes.values()):
        yield "         without the checkpoints whose size is not known"


def _time(study: Study, jobs: Mapping[str, Job], sizes: Mapping[str, Size | None], on: str) -> Iterator[str]:
    if len(jobs) < len(sizes):
        yield "time     not known, because a checkpoint's size is not"
        return
    import torch

    from demur.study.throughput import measure_rates

    rates = measure_rates(getattr(torch, study.dtype), torch.device(on), MEASURED_SECONDS)
    kind = memory_budget.kind_of(on)
    low, high = cost.seconds(list(jobs.values()), study, rates, kind)
    speed = rates.operations / 1e9
    rate = f"{speed:,.0f}" if speed >= 10 else f"{speed:.2g}"
    yield from _wrapped(f"time     {cost.in_words(low, high)} on this machine, now at {rate} GFLOP/s in {study.dtype}")
    if kind == "cuda":
        yield "         a wide guess: no run on a GPU was measured for it"


def _wrapped(line: str) -> list[str]:
    # A number stays with its unit.
    tied = re.sub(r"(?<=\d) (?=[GM]iB)", "\N{NO-BREAK SPACE}", line)
    lines = textwrap.wrap(tied, 80, subsequent_indent=" " * 9, break_on_hyphens=False)
    return [each.replace("\N{NO-BREAK SPACE}", " ") for each in lines]


def _gib(count: float | int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 0.05 * 2**30 else f"{count / 2**20:.0f} MiB"
