"""How demur reads one checkpoint, in lines of text: layout, proof of its sites, the prompt as tokens, dtype, device, memory."""

from collections.abc import Iterator

from demur.checkpoints import Checkpoint
from demur.prompts import bos_count, prompt_format


def diagnosis(checkpoint: Checkpoint, prompt: str) -> Iterator[str]:
    """How demur reads a loaded checkpoint. Its sites were proved on load, else there would be no checkpoint."""
    layout, weights = checkpoint.layout, sum(p.numel() for p in checkpoint.model.parameters())
    size = sum(p.numel() * p.element_size() for p in checkpoint.model.parameters())
    yield f"source       {checkpoint.source}"
    yield f"fingerprint  {checkpoint.fingerprint}"
    yield f"weights      {weights / 1e6:,.0f}M in {checkpoint.dtype} on {checkpoint.device}, {size / 2**30:.2f} GiB"
    yield f"layout       {layout.family}: {checkpoint.n_layers} blocks at {layout.blocks}, width {checkpoint.d_model}"
    yield f"branches     attention adds {layout.attention}, MLP adds {layout.mlp}" + (", in parallel" if layout.parallel else "")
    yield f"sites        {', '.join(layout.sites)}: each proved to reach the logits at every layer; branches sum to the block"
    bound = prompt_format(prompt, checkpoint)
    ids = bound.encode(["INSTRUCTION"])[0]
    tokens = [str(token) for token in checkpoint.tokenizer.convert_ids_to_tokens(ids)]
    yield f"prompt       {bound.name}: {bound.template!r}"
    yield f"tokens       {' '.join(tokens[:-1])} >>{tokens[-1]}<<  (position -1, where directions are read)"
    count, bos = bos_count(ids, checkpoint.tokenizer), checkpoint.tokenizer.bos_token
    yield f"BOS          {count} in front; the tokenizer's BOS is {bos!r}"
    yield f"stops at     {', '.join(repr(checkpoint.tokenizer.decode([i])) for i in checkpoint.stop_ids) or 'nothing'}"
