"""Independent references: the same experiment written without hooks, caches, batches or anything else of demur's.

`run_stream` walks a model's blocks by hand, so an edit of the stream is an assignment. It shares no code with the package.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Edit = Callable[[int, str, Tensor], Tensor]
"""(layer, site, stream) -> stream."""

POST_NORM = ("gemma2", "gemma3_text", "olmo2")


def leave(layer: int, site: str, stream: Tensor) -> Tensor:
    return stream


@torch.no_grad()
def run_stream(model: Any, ids: Tensor, edit: Edit = leave) -> tuple[dict[tuple[int, str], Tensor], Tensor]:
    """The stream at every site of every layer after `edit`, and the logits; ids of shape (1, seq), no padding, no cache."""
    family, seen = model.config.model_type, {}
    walk = _llama_like if hasattr(model, "model") and hasattr(model.model, "layers") else _gpt_like

    def at(layer: int, site: str, stream: Tensor) -> Tensor:
        seen[layer, site] = edit(layer, site, stream)
        return seen[layer, site]

    return seen, walk(model, family, ids, at)


def _mask(length: int, like: Tensor) -> Tensor:
    future = torch.full((length, length), torch.finfo(like.dtype).min, dtype=like.dtype).triu(1)
    return future[None, None]


def _llama_like(model: Any, family: str, ids: Tensor, at: Edit) -> Tensor:
    base = model.model
    stream = base.embed_tokens(ids)
    positions = torch.arange(ids.shape[1])[None]
    for layer, block in enumerate(base.layers):
        kind = getattr(block, "attention_type", None) or getattr(getattr(block, "self_attn", None), "layer_type", None)
        try:
            rotary = base.rotary_emb(stream, position_ids=positions, layer_type=kind)
        except TypeError:
            rotary = base.rotary_emb(stream, position_ids=positions)
        arguments = {"position_embeddings": rotary, "attention_mask": _mask(ids.shape[1], stream)}
        stream = at(layer, "resid_pre", stream)
        normed = stream if family == "olmo2" else block.input_layernorm(stream)
        added = block.self_attn(hidden_states=normed, **arguments)[0]
        if family in POST_NORM:
            added = block.post_attention_layernorm(added)
        stream = at(layer, "resid_mid", stream + added)
        if family == "olmo2":
            added = block.post_feedforward_layernorm(block.mlp(stream))
        elif family in POST_NORM:
            added = block.post_feedforward_layernorm(block.mlp(block.pre_feedforward_layernorm(stream)))
        else:
            added = block.mlp(block.post_attention_layernorm(stream))
        stream = at(layer, "resid_post", stream + (added[0] if isinstance(added, tuple) else added))
    logits = model.lm_head(base.norm(stream))
    cap = getattr(model.config, "final_logit_softcapping", None)
    return torch.tanh(logits / cap) * cap if cap else logits


def _gpt_like(model: Any, family: str, ids: Tensor, at: Edit) -> Tensor:
    if family == "gpt_neox":
        base = model.gpt_neox
        stream = base.embed_in(ids)
        rotary = base.rotary_emb(stream, position_ids=torch.arange(ids.shape[1])[None])
        for layer, block in enumerate(base.layers):
            stream = at(layer, "resid_pre", stream)
            arguments = {"attention_mask": _mask(ids.shape[1], stream), "position_embeddings": rotary}
            attention = block.attention(block.input_layernorm(stream), **arguments)[0]
            mlp = block.mlp(block.post_attention_layernorm(stream))
            stream = at(layer, "resid_post", stream + attention + mlp)
        return model.get_output_embeddings()(base.final_layer_norm(stream))
    base = model.transformer
    stream = base.wte(ids) + base.wpe(torch.arange(ids.shape[1])[None])
    for layer, block in enumerate(base.h):
        stream = at(layer, "resid_pre", stream)
        attention = block.attn(block.ln_1(stream), attention_mask=_mask(ids.shape[1], stream))[0]
        stream = at(layer, "resid_mid", stream + attention)
        stream = at(layer, "resid_post", stream + block.mlp(block.ln_2(stream)))
    return model.lm_head(base.ln_f(stream))


def ablated(vector: Tensor, layers: range | None = None) -> Edit:
    """Remove the component along `vector` at every site."""

    def edit(layer: int, site: str, stream: Tensor) -> Tensor:
        if layers is not None and layer not in layers:
            return stream
        unit = (vector / vector.norm()).to(stream.dtype)
        return stream - (stream @ unit)[..., None] * unit

    return edit


def shifted(vector: Tensor, where: int, sites: tuple[str, ...]) -> Edit:
    """Add `vector` at some sites of one layer."""

    def edit(layer: int, site: str, stream: Tensor) -> Tensor:
        return stream + vector.to(stream.dtype) if layer == where and site in sites else stream

    return edit


def decode(model: Any, prompt: list[int], edit: Edit, new_tokens: int) -> list[int]:
    """Greedy decoding of one prompt: the whole sequence again for every token, no stop."""
    ids = list(prompt)
    for _ in range(new_tokens):
        _, logits = run_stream(model, torch.tensor([ids]), edit)
        ids.append(int(logits[0, -1].argmax()))
    return ids[len(prompt) :]
