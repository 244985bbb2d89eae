"""How demur reads one checkpoint, in lines of text: layout, self-check, the prompt as tokens, dtype, device, memory.

The checkpoint is loaded, so its layout holds; the check runs once more for its figures. Where `native` is asked for and there is
no chat template, the line of the prompt says so and the others still stand.
"""

from collections.abc import Iterator

from demur.core.errors import InputError
from demur.engine.checkpoints import Checkpoint
from demur.engine.site_proof import prove_sites
from demur.inputs.chat_templates import can_think, is_dated
from demur.inputs.prompt_formats import NATIVE, NATIVES, NO_THINKING
from demur.inputs.prompts import Prompt, bos_count, prompt_format
from demur.models.device_placement import bytes_by_device
from demur.models.memory_budget import free
from demur.models.quantisation import counted

EXAMPLE = "INSTRUCTION"
"""Stands where an instruction would."""


def diagnosis(checkpoint: Checkpoint, prompt: str = NATIVE, *, position: int = -1) -> Iterator[str]:
    """Lines of `name  value`. Raises `InputError` for an unknown prompt format, not for a tokenizer without a chat template."""
    layout, (count, quantised) = checkpoint.layout, counted(checkpoint.model)
    merged = "" if checkpoint.quantised is None else ", beside the weights and not merged into them"
    adapter = "" if checkpoint.adapter is None else f" with adapter {checkpoint.adapter}{merged}"
    yield f"source       {checkpoint.source}{adapter}"
    yield f"fingerprint  {checkpoint.fingerprint}"
    yield f"weights      {count / 1e6:,.2f}M in {checkpoint.dtype}"
    if checkpoint.quantised is not None:
        yield f"quantised    {quantised / 1e6:,.2f}M of them in {checkpoint.quantised}"
    yield f"device       {checkpoint.device}" + _waiting(checkpoint)
    for device, size in bytes_by_device(checkpoint.model).items():
        beside = "" if device == "disk" else f", {free(device) / 2**30:.1f} GiB free beside them"
        yield f"memory       {size / 2**30:.2f} GiB of weights on {device}{beside}"
    yield f"layout       {layout.family}: {checkpoint.n_layers} blocks at {layout.blocks}, width {checkpoint.d_model}"
    yield f"branches     attention adds {layout.attention}, MLP adds {layout.mlp}" + _manner(checkpoint)
    proof = prove_sites(checkpoint.model, layout)
    yield f"sites        {', '.join(layout.sites)}"
    yield (
        f"self-check   {proof.edits} edits, one a layer and site, change the logits by at least {proof.least_change:.2g} of the "
        f"largest; branches sum to their blocks within {proof.worst_sum:.2g} roundings of {checkpoint.dtype}"
    )
    if prompt in NATIVES and not getattr(checkpoint.tokenizer, "chat_template", None):
        yield "prompt       this tokenizer has no chat template; choose a prompt format with --prompt"
    else:
        yield from _prompt(checkpoint, prompt_format(prompt, checkpoint), position)
    yield f"stops at     {', '.join(repr(checkpoint.tokenizer.decode([i])) for i in checkpoint.stop_ids) or 'nothing'}"


def _waiting(checkpoint: Checkpoint) -> str:
    spread = sorted(bytes_by_device(checkpoint.model))
    return "" if spread == [str(checkpoint.device)] else f" takes the input; weights are on {', '.join(spread)}"


def _manner(checkpoint: Checkpoint) -> str:
    layout = checkpoint.layout
    manner = ", in parallel" if layout.parallel else ", one after the other"
    return manner if layout.multiplier == 1 else f"{manner}, times {layout.multiplier:g}"


def _prompt(checkpoint: Checkpoint, prompt: Prompt, position: int) -> Iterator[str]:
    ids = prompt.encode([EXAMPLE])[0]
    tokens = [str(token) for token in checkpoint.tokenizer.convert_ids_to_tokens(ids)]
    if not -len(tokens) <= position < 0:
        raise InputError(f"position {position} is not in the prompt of {len(tokens)} tokens; positions count back from -1")
    read = len(tokens) + position
    shown = [f">>{token}<<" if place == read else token for place, token in enumerate(tokens)]
    yield f"prompt       {prompt.name}: {prompt.template!r}"
    if prompt.name == NATIVE and can_think(checkpoint.tokenizer):
        yield f"thinking     the template lets the model think first, and first tokens are thoughts then; --prompt {NO_THINKING}"
    if prompt.name in NATIVES and is_dated(checkpoint.tokenizer):
        yield "date         the template writes today's date; a run keeps the date that it first saw"
    yield f"tokens       {' '.join(shown)}"
    yield f"read at      position {position}, {tokens[read]!r}, where directions are read"
    count, bos = bos_count(ids, checkpoint.tokenizer), checkpoint.tokenizer.bos_token
    yield f"BOS          {count} in front; the tokenizer's BOS is {bos!r}"
