"""The floor of a job: the least time that its arithmetic and its memory traffic take on this machine.

Counted are two operations for every weight of every matrix that a token passes, and the two products of attention. Not counted
are norms, activation functions, rotary embeddings, the softmax, and the embedding, which is a lookup.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import demur
from demur.models.layouts import d_model_of
from demur.study.throughput import Rates


@dataclass(frozen=True)
class Count:
    """Operations of a job, and bytes of weights that it must read."""

    operations: float
    bytes: float

    def seconds(self, rates: Rates) -> float:
        """The larger of two times: operations at the matrix rate, and bytes at the copy rate."""
        return max(self.operations / rates.operations, self.bytes / rates.bytes)


def count(checkpoint: demur.Checkpoint, lengths: Sequence[int], new_tokens: int, batch_rows: int) -> Count:
    """Count a job without sharing: prompts of these lengths, each followed by `new_tokens`, decoded `batch_rows` at a time.

    Logits of a prompt are counted at its last token only. The last new token does not pass through the model.
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
