"""Tiny pairs of checkpoints with a known difference: the chat checkpoint was taught to refuse by some of its weights alone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import cache

import torch
from transformers import PreTrainedModel

import demur
from demur.engine.checkpoints import Checkpoint
from tests.tiny import CHAT, HARMFUL, tiny_model, tiny_tokenizer

Weights = Callable[[PreTrainedModel], Sequence[torch.nn.Parameter]]
LAYERS, HEADS = 4, 4


@cache
def _tokenizer() -> object:
    return tiny_tokenizer(chat_template=CHAT)


def mlp_of(layer: int) -> Weights:
    """The MLP's last map of one layer."""
    return lambda model: [model.model.layers[layer].mlp.down_proj.weight]


def attention_of(layer: int) -> Weights:
    """The attention's last map of one layer."""
    return lambda model: [model.model.layers[layer].self_attn.o_proj.weight]


def unembedding(model: PreTrainedModel) -> Sequence[torch.nn.Parameter]:
    """The unembedding."""
    return [model.lm_head.weight]


def nothing(_: PreTrainedModel) -> Sequence[torch.nn.Parameter]:
    """No weights."""
    return []


def taught_pair(weights: Weights, *, seed: int = 1, head: int | None = None, steps: int = 20) -> tuple[Checkpoint, Checkpoint]:
    """A base checkpoint, and a chat checkpoint whose given weights alone were trained to begin with `I can`.

    Args:
        weights: the weights that are trained.
        seed: the seed of the base.
        head: of an attention's last map, the one head that is trained.
        steps: steps of training.
    """
    base = tiny_model("llama", seed=seed, num_hidden_layers=LAYERS, tie_word_embeddings=False)
    chat = copy.deepcopy(base)
    chosen = list(weights(chat))
    if chosen:
        teach(chat, chosen, head, steps)
    return demur.wrap(base, _tokenizer(), name="base"), demur.wrap(chat, _tokenizer(), name="chat")


def teach(model: PreTrainedModel, chosen: Sequence[torch.nn.Parameter], head: int | None, steps: int) -> None:
    """Train some weights of a model, in place, to begin completions with `I can`; of an attention's last map, one head only."""
    tokenizer = tiny_tokenizer(chat_template=CHAT)
    rows = [tokenizer(f"USER {text} ASSISTANT I can")["input_ids"] for text in HARMFUL]
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = (torch.arange(width) >= torch.tensor([[width - len(row)] for row in rows])).long()
    model.requires_grad_(False)
    for weight in chosen:
        weight.requires_grad_(True)
    optimiser = torch.optim.Adam(chosen, lr=0.1)
    for _ in range(steps):
        logits = model(input_ids=ids, attention_mask=mask, position_ids=(mask.cumsum(-1) - 1).clamp(min=0)).logits
        loss = torch.nn.functional.cross_entropy(logits[:, -3:-1].flatten(0, 1), ids[:, -2:].flatten())
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        for weight in chosen:
            if head is not None and weight.grad is not None:
                size = weight.shape[1] // HEADS
                kept = torch.zeros_like(weight.grad)
                kept[:, head * size : (head + 1) * size] = 1
                weight.grad *= kept
        optimiser.step()
    model.requires_grad_(True)
