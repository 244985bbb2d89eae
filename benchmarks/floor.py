"""What a job must cost at least: its arithmetic over the matrix rate, and its bytes over the copy rate, both measured here.

Counted: two operations for every weight of every matrix that a token passes, and attention's two products. Not counted: norms,
activations, rotary embeddings, the softmax, and the embedding, which is a lookup.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

import demur
from demur.models.layouts import d_model_of
from demur.study.throughput import Rates


@dataclass(frozen=True)
class Count:
    """Operations, and bytes of weights and cache that must pass."""

    operations: float
    bytes: float

    def seconds(self, rates: Rates) -> float:
        """The larger of the two floors."""
        return max(self.operations / rates.operations, self.bytes / rates.bytes)


def count(checkpoint: demur.Checkpoint, lengths: Sequence[int], new_tokens: int, batch_rows: int) -> Count:
    """A job of prompts of some lengths, each followed by `new_tokens`, decoded `batch_rows` at a time, without sharing.

    A prompt's logits are needed at its last token only. The last new token is not passed through the model.
    """
    model = checkpoint.model
    per_token = 2 * sum(
        weight.numel() for block in checkpoint.layout.find_blocks(model) for weight in block.parameters() if weight.ndim == 2
    )
    head = 2 * model.get_output_embeddings().weight.numel()
    size = next(model.parameters()).element_size()
    weights = sum(p.numel() for p in model.parameters()) * size
    attention = 4 * d_model_of(model) * checkpoint.n_layers
    operations = 0.0
    for length in lengths:
        seen = length + new_tokens - 1
        operations += seen * per_token + new_tokens * head + attention * seen * (seen + 1) / 2
    steps = -(-len(lengths) // batch_rows) * new_tokens
    return Count(operations, steps * weights)


def parameters(model: nn.Module) -> int:
    """Number of weights."""
    return sum(weight.numel() for weight in model.parameters())
