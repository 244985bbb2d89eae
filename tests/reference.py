"""Independent references: the same experiment written without hooks, caches, batches or anything else of demur's.

`run_stream` walks a model's blocks by hand, so an edit of the stream is an assignment. It shares no code with the package.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Edit = Callable[[int, str, Tensor], Tensor]
"""(layer, site, stream) -> stream."""


def leave(layer: int, site: str, stream: Tensor) -> Tensor:
    return stream


@torch.no_grad()
def run_stream(model: PreTrainedModel, ids: Tensor, edit: Edit = leave) -> tuple[dict[tuple[int, str], Tensor], Tensor]:
    """The stream at every site of every layer after `edit`, and the logits; ids of shape (1, seq), no padding, no cache."""
    seen: dict[tuple[int, str], Tensor] = {}

    def at(layer: int, site: str, stream: Tensor) -> Tensor:
        seen[layer, site] = edit(layer, site, stream)
        return seen[layer, site]

    return seen, _WALKS.get(model.config.model_type, _llama_like)(model, ids, at)


def _mask(length: int, like: Tensor, window: int | None = None) -> Tensor:
    row, column = torch.arange(length)[:, None], torch.arange(length)[None]
    hidden = (column > row) | (column <= row - (window or length))
    return torch.zeros(length, length, dtype=like.dtype).masked_fill(hidden, torch.finfo(like.dtype).min)[None, None]


def _positions(ids: Tensor) -> Tensor:
    return torch.arange(ids.shape[1])[None]


def _alibi(heads: int, length: int, like: Tensor) -> Tensor:
    """(head, 1, key): minus the slope times the distance of a key, up to a constant that the softmax does not see."""
    slopes = torch.tensor([2.0 ** (-8 * (head + 1) / heads) for head in range(heads)], dtype=like.dtype)
    return slopes[:, None, None] * torch.arange(length, dtype=like.dtype)


def _llama_like(model: PreTrainedModel, ids: Tensor, at: Edit) -> Tensor:
    base = model.model
    base = getattr(base, "language_model", getattr(base, "text_model", base))
    config, family = base.config, base.config.model_type
    stream = base.embed_tokens(ids) * getattr(config, "embedding_multiplier", 1)
    positions = _positions(ids).expand(3, 1, -1) if "vl_text" in family else _positions(ids)
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * len(base.layers)
    for layer, block in enumerate(block for block in base.layers if not hasattr(block, "cross_attn")):
        try:
            rotary = base.rotary_emb(stream, position_ids=positions, layer_type=kinds[layer])
        except TypeError:
            rotary = base.rotary_emb(stream, position_ids=positions)
        window = getattr(config, "sliding_window", None) if kinds[layer] == "sliding_attention" else None
        mask = _mask(ids.shape[1], stream, window)
        stream = at(layer, "resid_pre", stream)
        normed = stream if family == "olmo2" else block.input_layernorm(stream)
        attention = block.self_attn(hidden_states=normed, position_embeddings=rotary, attention_mask=mask)[0]
        if family in ("cohere", "cohere2", "phi") or getattr(config, "use_parallel_residual", False):
            stream = at(layer, "resid_post", stream + attention + block.mlp(normed))
            continue
        if family in ("gemma2", "gemma3_text", "olmo2"):
            attention = block.post_attention_layernorm(attention)
        elif family == "glm4":
            attention = block.post_self_attn_layernorm(attention)
        elif family == "granite":
            attention = attention * config.residual_multiplier
        stream = at(layer, "resid_mid", stream + attention)
        if family == "olmo2":
            mlp = block.post_feedforward_layernorm(block.mlp(stream))
        elif family in ("gemma2", "gemma3_text"):
            mlp = block.post_feedforward_layernorm(block.mlp(block.pre_feedforward_layernorm(stream)))
        elif family == "glm4":
            mlp = block.post_mlp_layernorm(block.mlp(block.post_attention_layernorm(stream)))
        elif family == "granite":
            mlp = block.mlp(block.post_attention_layernorm(stream)) * config.residual_multiplier
        elif family == "gpt_oss":
            mlp = block.mlp(block.post_attention_layernorm(stream))[0]
        else:
            mlp = block.mlp(block.post_attention_layernorm(stream))
        stream = at(layer, "resid_post", stream + mlp)
    logits: Tensor = model.lm_head((base.final_layernorm if family == "phi" else base.norm)(stream))
    # The scale belongs to the causal language model; a model that also sees leaves it out.
    logits = logits / getattr(config, "logits_scaling", 1) * getattr(model.config, "logit_scale", 1)
    cap = getattr(config, "final_logit_softcapping", None)
    return torch.tanh(logits / cap) * cap if cap else logits


def _gpt_neox(model: PreTrainedModel, ids: Tensor, at: Edit) -> Tensor:
    base = model.gpt_neox
    stream = base.embed_in(ids)
    rotary = base.rotary_emb(stream, position_ids=_positions(ids))
    for layer, block in enumerate(base.layers):
        stream = at(layer, "resid_pre", stream)
        mask = _mask(ids.shape[1], stream)
        attention = block.attention(block.input_layernorm(stream), attention_mask=mask, position_embeddings=rotary)[0]
        if model.config.use_parallel_residual:
            stream = at(layer, "resid_post", stream + attention + block.mlp(block.post_attention_layernorm(stream)))
        else:
            stream = at(layer, "resid_mid", stream + attention)
            stream = at(layer, "resid_post", stream + block.mlp(block.post_attention_layernorm(stream)))
    logits: Tensor = model.get_output_embeddings()(base.final_layer_norm(stream))
    return logits


def _gpt2(model: PreTrainedModel, ids: Tensor, at: Edit) -> Tensor:
    base = model.transformer
    stream = base.wte(ids) + base.wpe(_positions(ids))
    for layer, block in enumerate(base.h):
        stream = at(layer, "resid_pre", stream)
        stream = at(layer, "resid_mid", stream + block.attn(block.ln_1(stream), attention_mask=_mask(ids.shape[1], stream))[0])
        stream = at(layer, "resid_post", stream + block.mlp(block.ln_2(stream)))
    logits: Tensor = model.lm_head(base.ln_f(stream))
    return logits


def _gptj(model: PreTrainedModel, ids: Tensor, at: Edit) -> Tensor:
    base = model.transformer
    stream = base.wte(ids)
    for layer, block in enumerate(base.h):
        stream = at(layer, "resid_pre", stream)
        normed, mask = block.ln_1(stream), _mask(ids.shape[1], stream)
        attention = block.attn(hidden_states=normed, attention_mask=mask, position_ids=_positions(ids))[0]
        stream = at(layer, "resid_post", stream + attention + block.mlp(normed))
    logits: Tensor = model.lm_head(base.ln_f(stream))
    return logits


def _opt(model: PreTrainedModel, ids: Tensor, at: Edit) -> Tensor:
    base = model.model.decoder
    stream = base.embed_tokens(ids)
    stream = stream if base.project_in is None else base.project_in(stream)
    stream = stream + base.embed_positions.weight[_positions(ids) + 2]
    for layer, block in enumerate(base.layers):
        stream = at(layer, "resid_pre", stream)
        normed, mask = block.self_attn_layer_norm(stream), _mask(ids.shape[1], stream)
        stream = at(layer, "resid_mid", stream + block.self_attn(hidden_states=normed, attention_mask=mask)[0])
        stream = at(layer, "resid_post", stream + block.fc2(block.fc1(block.final_layer_norm(stream)).relu()))
    stream = base.final_layer_norm(stream)
    logits: Tensor = model.lm_head(stream if base.project_out is None else base.project_out(stream))
    return logits


def _bloom(model: PreTrainedModel, ids: Tensor, at: Edit) -> Tensor:
    base = model.transformer
    stream = base.word_embeddings_layernorm(base.word_embeddings(ids))
    alibi = _alibi(model.config.n_head, ids.shape[1], stream)
    for layer, block in enumerate(base.h):
        stream = at(layer, "resid_pre", stream)
        # Both modules add the stream that they are given to what they return.
        stream = block.self_attention(block.input_layernorm(stream), stream, alibi, _mask(ids.shape[1], stream))[0]
        stream = at(layer, "resid_mid", stream)
        stream = at(layer, "resid_post", block.mlp(block.post_attention_layernorm(stream), stream))
    logits: Tensor = model.lm_head(base.ln_f(stream))
    return logits


def _mpt(model: PreTrainedModel, ids: Tensor, at: Edit) -> Tensor:
    base = model.transformer
    stream = base.wte(ids)
    alibi = _alibi(model.config.n_heads, ids.shape[1], stream)
    for layer, block in enumerate(base.blocks):
        stream = at(layer, "resid_pre", stream)
        hidden = _mask(ids.shape[1], stream) < 0
        stream = at(layer, "resid_mid", stream + block.attn(block.norm_1(stream), position_bias=alibi, attention_mask=hidden)[0])
        stream = at(layer, "resid_post", block.ffn(block.norm_2(stream), stream))
    logits: Tensor = model.lm_head(base.norm_f(stream))
    return logits


def _falcon(model: PreTrainedModel, ids: Tensor, at: Edit) -> Tensor:
    base, config = model.transformer, model.config
    stream = base.word_embeddings(ids)
    alibi = _alibi(config.num_attention_heads, ids.shape[1], stream)[None] if config.alibi else None
    rotary = base.rotary_emb(stream, position_ids=_positions(ids))
    for layer, block in enumerate(base.h):
        stream = at(layer, "resid_pre", stream)
        mask = _mask(ids.shape[1], stream)
        if alibi is not None:
            mask = mask + alibi / (config.hidden_size // config.num_attention_heads) ** 0.5
        two_norms = hasattr(block, "ln_attn")
        normed = (block.ln_attn if two_norms else block.input_layernorm)(stream)
        attention = block.self_attention(normed, alibi, mask, position_embeddings=rotary)[0].clone()
        if config.parallel_attn or config.new_decoder_architecture:
            mlp = block.mlp(block.ln_mlp(stream) if two_norms else normed)
            stream = at(layer, "resid_post", stream + attention + mlp)
        else:
            stream = at(layer, "resid_mid", stream + attention)
            stream = at(layer, "resid_post", stream + block.mlp(block.post_attention_layernorm(stream)))
    logits: Tensor = model.lm_head(base.ln_f(stream))
    return logits


_WALKS: dict[str, Callable[[PreTrainedModel, Tensor, Edit], Tensor]] = {
    "bloom": _bloom, "falcon": _falcon, "gpt2": _gpt2, "gpt_neo": _gpt2, "gpt_neox": _gpt_neox, "gptj": _gptj, "mpt": _mpt,
    "opt": _opt,
}  # fmt: skip


def ablated(vector: Tensor, layers: range | None = None) -> Edit:
    """Remove the component along `vector` at every site."""

    def edit(layer: int, site: str, stream: Tensor) -> Tensor:
        if layers is not None and layer not in layers:
            return stream
        unit: Tensor = (vector / vector.norm()).to(stream.dtype)
        return stream - (stream @ unit)[..., None] * unit

    return edit


def shifted(vector: Tensor, where: int, sites: tuple[str, ...]) -> Edit:
    """Add `vector` at some sites of one layer."""

    def edit(layer: int, site: str, stream: Tensor) -> Tensor:
        return stream + vector.to(stream.dtype) if layer == where and site in sites else stream

    return edit


def decode(model: PreTrainedModel, prompt: list[int], edit: Edit, new_tokens: int) -> list[int]:
    """Greedy decoding of one prompt: the whole sequence again for every token, no stop."""
    ids = list(prompt)
    for _ in range(new_tokens):
        _, logits = run_stream(model, torch.tensor([ids]), edit)
        ids.append(int(logits[0, -1].argmax()))
    return ids[len(prompt) :]
