"""The unembedding of float32 models on a processor, piece by piece over the vocabulary.

One product of a few rows with a whole vocabulary runs at about half of the rate that the same product has in pieces whose weights
stay in the caches (docs/performance.md). Every logit is the same sum in the same order. Models on other devices, in other types,
and heads that are not a plain linear map are left alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

PIECE = 1024
"""Tokens of the vocabulary a product: 2.4 MB of weights at a width of 576. Half or twice as many made no difference."""


@contextmanager
def in_pieces(model: PreTrainedModel) -> Iterator[None]:
    """Inside, the model's head works in pieces. Enter it under `torch.inference_mode`: gradients do not pass."""
    head: Any = model.get_output_embeddings()
    # A forward of its own is one that accelerate put there, to move weights.
    plain = type(head) is nn.Linear and "forward" not in vars(head)
    if not plain or head.weight.dtype != torch.float32 or not head.weight.is_cpu:
        yield
        return

    def forward(states: Tensor) -> Tensor:
        rows, weight = states.reshape(-1, states.shape[-1]), head.weight
        logits = rows.new_empty(len(rows), len(weight))
        for start in range(0, len(weight), PIECE):
            piece = slice(start, start + PIECE)
            if head.bias is None:
                torch.mm(rows, weight[piece].T, out=logits[:, piece])
            else:
                torch.addmm(head.bias[piece], rows, weight[piece].T, out=logits[:, piece])
        return logits.view(*states.shape[:-1], len(weight))

    head.forward = forward
    try:
        yield
    finally:
        del head.forward
