"""What a job must cost at least: its arithmetic over the matrix rate, and its bytes over the copy rate, both measured here.

Counted: two operations for every weight of every matrix that a token passes, and attention's two products. Not counted: norms,
activations, rotary embeddings, the softmax, and the embedding, which is a lookup.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

import demur
from demur.layouts import d_model_of


@dataclass(frozen=True)
class Rates:
    """Operations a second of large matrix products and bytes a second of large copies, read plus written."""

    operations: float
    bytes: float


def measure_rates(dtype: torch.dtype, device: torch.device, seconds: float = 1.0) -> Rates:
    """The best of many repeats over matrices of the sizes that a batch makes."""
    size = 2048 if device.type == "cpu" else 8192
    one = torch.randn(size, size, dtype=dtype, device=device)
    other = torch.randn(size, size, dtype=dtype, device=device)
    flat = torch.empty(2**27 if device.type == "cpu" else 2**30, dtype=torch.uint8, device=device)
    target = torch.empty_like(flat)
    return Rates(
        2 * size**3 / _best(lambda: one @ other, device, seconds),
        2 * flat.numel() / _best(lambda: target.copy_(flat), device, seconds),
    )


def _best(work: Callable[[], object], device: torch.device, seconds: float) -> float:
    best, until = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < until:
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return best


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
