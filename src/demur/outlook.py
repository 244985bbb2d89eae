"""What a study comes to, in lines of text, before anything is loaded: cells, tokens, loads and memory. Reads no weights."""

from collections.abc import Iterator
from contextlib import suppress

from demur import memory
from demur.comparable import compare, precisions
from demur.errors import InputError
from demur.instructions import load_instructions
from demur.placement import find_device
from demur.plan import loads, make_plan, order_steps
from demur.prompts import NATIVE, template_text
from demur.sources import Source, find_model
from demur.study import LABELS, Study

TOKENS_A_WORD = 1.4
"""Rough number of tokens a word of an English instruction; a tokenizer is not loaded for a plan."""


def outlook(study: Study, device: str = "auto") -> Iterator[str]:
    """The plan of a study: checkpoints, cells, rows, about how many tokens, loads and memory. Loads no weights."""
    plan = make_plan(study)
    find_device(device)
    for arm in plan.arms:
        if arm.spec != NATIVE:
            template_text(arm.spec)
    sources = _found(study)
    notes = compare(sources)
    sizes: dict[str, int | None] = {}
    yield f"{study.name}: {study.summary}"
    yield ""
    yield "checkpoints"
    for name, spec in study.checkpoints.items():
        sizes[name], note = _size(study, name, sources.get(name))
        arms = ", ".join(arm.prompt for arm in plan.arms_of(name))
        adapter = f" + {spec.adapter}" if spec.adapter else ""
        yield f"  {name:10} {spec.model}{adapter}  prompts: {arms}  {note}"
    yield ""
    yield "directions"
    for direction in plan.directions:
        kind = f"random, same norm, beside {direction.arm.name}" if direction.control else f"from {direction.arm.name}"
        where = f"layer {direction.layer}  {study.direction.site}  position {study.direction.position}"
        yield f"  {direction.name:22} {where}  {kind}"
    yield ""
    yield "interventions"
    for edit in study.interventions:
        dose = "" if edit.coefficient is None else f" {edit.coefficient:g} {edit.unit}"
        sites = ", ".join(edit.sites) if edit.sites else ("all sites, all layers" if edit.kind == "ablate" else "own site")
        whose = "every direction" if edit.sources is None else f"directions of {', '.join(edit.sources)}"
        yield f"  {edit.kind}{dose}  {whose} at {sites}, on {', '.join(edit.on)} instructions"
    yield ""
    words = {label: _words(study, label) for label in LABELS}
    tokens = sum(
        study.instructions[cell.instructions].test * (words[cell.instructions] * TOKENS_A_WORD + 20 + study.max_new_tokens)
        for cell in plan.cells
    )
    names = list(study.checkpoints)
    steps = order_steps(names, names, sizes, memory.available(device))
    yield f"cells    {len(plan.cells)}, with {plan.rows()} completions of up to {study.max_new_tokens} tokens"
    yield f"tokens   about {tokens:,.0f}"
    yield f"loads    {loads(steps)} of {len(names)} checkpoints"
    yield f"order    {', '.join(f'{step.action} {step.checkpoint}' for step in steps)}"
    for note in (*notes, *precisions(study)):
        yield f"note     {note}"


def _found(study: Study) -> dict[str, Source]:
    """The checkpoints that are in reach; a plan is shown without the others."""
    found = {}
    for name, spec in study.checkpoints.items():
        with suppress(InputError):
            found[name] = find_model(spec.model, spec.revision)
    return found


def _size(study: Study, name: str, source: Source | None) -> tuple[int | None, str]:
    spec, where = study.checkpoints[name], ""
    if source is not None:
        found = memory.weights(source)
    else:
        # Which of them are linear maps is not known; nearly all are.
        found = None if spec.parameters is None else memory.Weights(int(spec.parameters), int(spec.parameters))
        where = ", not on this machine"
    if found is None:
        return None, f"size unknown{where}"
    size = found.size(study.dtype, spec.quantise)
    precision = study.dtype if spec.quantise is None else f"{spec.quantise} and {study.dtype}"
    return size, f"{found.total / 1e6:,.0f}M weights, {size / 2**30:.1f} GiB in {precision}{where}"


def _words(study: Study, label: str) -> float:
    spec = study.instructions[label]  # type: ignore[index]
    try:
        rows = load_instructions(spec.source).take(study.split)[: spec.test]
    except InputError:
        # The set is not in reach; a plan is shown all the same, with the length of a usual instruction.
        return 12.0
    return sum(len(row.split()) for row in rows) / len(rows)
