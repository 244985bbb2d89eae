"""Decode steps of fixed shape with the edits inside them, captured once and then replayed: an experiment for GPUs.

The eager loop launches the kernels of a step one by one, and each edit adds kernels. A captured step is launched as a whole. For
this the shape must be fixed: rows stay in the batch to the end, and attention runs over all token positions, filled or not.
The tokens are those of `decode_batch`, up to ties in lower precision.

This is not a part of demur, because its gain has not been measured on a GPU. Two things cannot be captured: models whose step
depends on values, such as routers of experts, and batches wider than a window of local attention. Such a batch is refused.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from demur.core.errors import InputError
from demur.engine.batching import position_ids
from demur.engine.decode import BufferLayer, NewTokens, prefilled
from demur.engine.engine_protocol import Decoding, Row
from demur.engine.hooks import edited
from demur.interventions.edit_table import tabulate
from demur.models.device_placement import input_device, weights_dtype
from demur.models.layouts import Layout, d_model_of

Step = Callable[[], Tensor]
"""Computes logits from tensors that stay at the same memory addresses. A captured step also keeps its result at one address."""


class FixedLayer(DynamicLayer):  # type: ignore[misc]
    """One layer's keys and values: whole buffers. A tensor holds the token position at which new ones are written."""

    def __init__(self, layer: BufferLayer, column: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(*layer.buffers)
        self.keys, self.values = layer.buffers
        self._column = column

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Write new keys and values; transformers calls this in each forward pass."""
        for buffer, given in ((self.keys, key_states), (self.values, value_states)):
            buffer.index_copy_(2, self._column, given)
        return self.keys, self.values


def graph(step: Step) -> Step:
    """The step as a CUDA graph. The step must have run once before, so that nothing is set up while it is captured."""
    captured = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.graph(captured):
        result = step()

    def replay() -> Tensor:
        captured.replay()
        return result

    return replay


@torch.inference_mode()
def decode_captured(
    model: PreTrainedModel, layout: Layout, rows: Sequence[Row], decoding: Decoding, capture: Callable[[Step], Step] = graph
) -> list[list[int]]:
    """New tokens of each row, as `decode_batch` gives them. All rows are one batch."""
    device, n_layers, width = input_device(model), len(layout.find_blocks(model)), d_model_of(model)
    new_tokens, everyone = NewTokens(len(rows), decoding), range(len(rows))
    buffers, ids = prefilled(model, layout, rows, decoding, new_tokens)
    if len(new_tokens.ended) == len(rows):
        return new_tokens.tokens
    prompt_width, room = buffers.mask.shape[1], decoding.max_new_tokens - 1
    _check_window(model, prompt_width + room)
    column = torch.tensor([prompt_width], device=device)
    positions = position_ids(buffers.mask)[:, -1:] + 1
    real = torch.cat((buffers.mask, buffers.mask.new_zeros(len(rows), room)), dim=1)[:, None, None]
    # This mask is added to the attention scores.
    mask = torch.where(real > 0, 0.0, torch.finfo(weights_dtype(model)).min).to(weights_dtype(model))
    mask.index_fill_(3, column, 0.0)
    cache = DynamicCache()
    cache.layers = [FixedLayer(layer, column) if isinstance(layer, BufferLayer) else layer for layer in buffers.cache.layers]

    table = tabulate([row.edits for row in rows], layout, n_layers, width, device)

    def step() -> Tensor:
        with edited(model, layout, table, prompt_width=prompt_width):
            output: Any = model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
        logits: Tensor = output.logits[:, -1]
        return logits

    run: Step = step
    while len(new_tokens.ended) < len(rows):
        ids.copy_(new_tokens.add(run(), everyone))
        if len(new_tokens.ended) < len(rows):
            positions.add_(1)
            column.add_(1)
            mask.index_fill_(3, column, 0.0)
            if run is step:
                run = capture(step)
    return new_tokens.tokens


def _check_window(model: PreTrainedModel, columns: int) -> None:
    window = getattr(model.config.get_text_config(), "sliding_window", None)
    if window is not None and window < columns:
        raise InputError(f"rows of {columns} tokens are wider than this model's window of {window}; use shorter prompts")
