"""The lines of text that `demur doctor` prints."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from demur.engine.diagnosis import Diagnosis, PromptDiagnosis


def doctor_lines(found: "Diagnosis") -> Iterator[str]:
    """Yields one line of `name  value` for each fact.

    Args:
        found: the result of `demur.engine.diagnosis.diagnosis`.
    """
    layout, proof = found.layout, found.proof
    merged = "" if found.quantised is None else ", not merged into the weights"
    adapter = "" if found.adapter is None else f" with adapter {found.adapter}{merged}"
    yield f"source       {found.source}{adapter}"
    yield f"fingerprint  {found.fingerprint}"
    yield f"weights      {found.weights / 1e6:,.2f}M in {found.dtype}"
    if found.quantised is not None:
        yield f"quantised    {found.quantised_weights / 1e6:,.2f}M of them in {found.quantised}"
    yield f"device       {found.device}" + _elsewhere(found)
    for one in found.memory:
        free = "" if one.free is None else f", {one.free / 2**30:.1f} GiB free in addition"
        yield f"memory       {one.weights / 2**30:.2f} GiB of weights on {one.device}{free}"
    yield f"layout       {layout.family}: {found.n_layers} blocks at {layout.blocks}, width {found.d_model}"
    order = ", in parallel" if layout.parallel else ", one after the other"
    factor = "" if layout.multiplier == 1 else f", times {layout.multiplier:g}"
    yield f"branches     attention adds {layout.attention}, MLP adds {layout.mlp}{order}{factor}"
    yield f"sites        {', '.join(layout.sites)}"
    yield (
        f"self-check   {proof.edits} test edits, one per layer and site; each changes the logits by at least "
        f"{proof.least_change:.2g} of the largest; branches sum to their blocks within {proof.worst_sum:.2g} rounding errors of "
        f"{found.dtype}"
    )
    if found.beyond:
        token, index = next(iter(found.beyond.items()))
        yield (
            f"tokenizer    {len(found.beyond)} of its tokens have no row in the embedding of {found.rows} rows, such as "
            f"{token!r} with id {index}; a prompt with one of them is refused"
        )
    if found.prompt is None:
        yield "prompt       this tokenizer has no chat template; choose a prompt format with --prompt"
    else:
        yield from _prompt_lines(found.prompt)
    yield f"stops at     {', '.join(map(repr, found.stops)) or 'nothing'}"
    for sentence in found.warnings:
        yield f"warning      {sentence}"


def _elsewhere(found: "Diagnosis") -> str:
    devices = sorted(one.device for one in found.memory)
    return "" if devices == [found.device] else f" takes the input; weights are on {', '.join(devices)}"


def _prompt_lines(prompt: "PromptDiagnosis") -> Iterator[str]:
    read = prompt.read_index
    shown = [f">>{token}<<" if place == read else token for place, token in enumerate(prompt.tokens)]
    yield f"prompt       {prompt.name}: {prompt.template!r}"
    if prompt.thinking is not None:
        are = "are" if prompt.thinking.sure else "may be"
        yield f"thinking     the first tokens {are} thoughts, because {prompt.thinking.why}; {prompt.thinking.way_out}"
    if prompt.is_dated:
        yield "date         the template contains today's date; a run keeps the date on which it began"
    yield f"tokens       {' '.join(shown)}"
    yield f"read at      position {prompt.position}, {prompt.tokens[read]!r}, where directions are read"
    yield f"BOS          {prompt.bos_count} at the start; the tokenizer's BOS is {prompt.bos!r}"
