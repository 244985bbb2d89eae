"""Sparse autoencoders for tests: written in each public format, trained on a tiny model, or with one planted latent."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

import demur
from demur.engine.checkpoints import Checkpoint
from tests.pairs import teach
from tests.tiny import CHAT, tiny_model, tiny_tokenizer

Weights = dict[str, Tensor]


def random_weights(width: int, latents: int, seed: int = 0) -> Weights:
    """Weights under SAELens' names, with unit decoder rows."""
    generator = torch.Generator().manual_seed(seed)
    decoder = torch.nn.functional.normalize(torch.randn(latents, width, generator=generator), dim=-1)
    return {
        "W_enc": decoder.T.contiguous() / 4,
        "b_enc": 0.1 * torch.randn(latents, generator=generator),
        "W_dec": decoder,
        "b_dec": 0.1 * torch.randn(width, generator=generator),
        "threshold": 0.2 * torch.rand(latents, generator=generator),
    }


def write_gemma_scope(folder: Path, weights: Weights, layer: int, **config: object) -> Path:
    """`params.safetensors` with its `config.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name.replace("W_", "w_"): tensor for name, tensor in weights.items()}, folder / "params.safetensors")
    said = {"architecture": "jump_relu", "hf_hook_point_in": f"model.layers.{layer}.output", "l0": 8, **config}
    (folder / "config.json").write_text(json.dumps(said), encoding="utf-8")
    return folder / "params.safetensors"


def write_qwen_scope(folder: Path, weights: Weights, layer: int, k: int) -> Path:
    """`layer1.sae.pt` in a folder that ends in `L0_8`."""
    own = folder / f"SAE-Res-tiny-W1K-L0_{k}"
    own.mkdir(parents=True, exist_ok=True)
    turned = {name: weights[name].T.contiguous() for name in ("W_enc", "W_dec")}
    torch.save({**turned, "b_enc": weights["b_enc"], "b_dec": weights["b_dec"]}, own / f"layer{layer}.sae.pt")
    return own / f"layer{layer}.sae.pt"


def write_sae_lens(folder: Path, weights: Weights, layer: int, architecture: str = "jumprelu", **config: object) -> Path:
    """`sae_weights.safetensors` with its `cfg.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = {name: tensor for name, tensor in weights.items() if name != "threshold" or "jumprelu" in architecture}
    save_file(kept, folder / "sae_weights.safetensors")
    said = {"architecture": architecture, "apply_b_dec_to_input": False, "normalize_activations": "none"}
    said |= {"metadata": {"hook_name": f"blocks.{layer}.hook_resid_post"}, **config}
    (folder / "cfg.json").write_text(json.dumps(said), encoding="utf-8")
    return folder / "sae_weights.safetensors"


def trained_weights(streams: Tensor, latents: int, k: int, steps: int = 150) -> Weights:
    """A TopK autoencoder that is trained for a few steps on some activations, (token, d_model)."""
    weights = {name: one.clone() for name, one in random_weights(streams.shape[1], latents).items() if name != "threshold"}
    weights["b_enc"].zero_()
    weights["b_dec"] = streams.mean(0)
    learned = [one.requires_grad_() for one in weights.values()]
    optimiser = torch.optim.Adam(learned, lr=0.02)
    for _ in range(steps):
        found = ((streams - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]).relu()
        top = found.topk(k, dim=-1)
        kept = torch.zeros_like(found).scatter(-1, top.indices, top.values)
        loss = (kept @ weights["W_dec"] + weights["b_dec"] - streams).square().sum(-1).mean()
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
    return {name: one.detach().contiguous() for name, one in weights.items()}


PLANTED = 7
"""The latent that carries the planted vector."""


def planted_checkpoint() -> tuple[Checkpoint, Tensor]:
    """A checkpoint that says `I can` because its layer 1 adds one constant vector to the stream, and that vector."""
    base = tiny_model("llama", num_hidden_layers=4, tie_word_embeddings=False, mlp_bias=True)
    chat = copy.deepcopy(base)
    bias = chat.model.layers[1].mlp.down_proj.bias
    teach(chat, [bias], None, 200)
    vector = (bias - base.model.layers[1].mlp.down_proj.bias).detach()
    return demur.wrap(chat, tiny_tokenizer(chat_template=CHAT), name="chat"), vector


def planted_weights(vector: Tensor, latents: int = 60) -> Weights:
    """Latents of which one reads and writes the stream along a vector; the others read and write along small random ones.

    All decoder rows have unit norm, and all latents are active at nearly every token.
    """
    generator = torch.Generator().manual_seed(3)
    unit = vector / vector.norm()
    rows = torch.randn(latents, len(vector), generator=generator)
    rows = torch.nn.functional.normalize(rows - (rows @ unit)[:, None] * unit, dim=-1)
    rows[PLANTED] = unit
    encoder, bias = 0.01 * rows.T.contiguous(), torch.full((latents,), 0.1)
    encoder[:, PLANTED], bias[PLANTED] = unit, 0.0
    return {"W_enc": encoder, "b_enc": bias, "W_dec": rows, "b_dec": torch.zeros(len(vector)), "threshold": torch.zeros(latents)}
