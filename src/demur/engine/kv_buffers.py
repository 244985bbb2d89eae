"""The KV cache of a batch: one buffer a layer, made once with room for all tokens to come.

Chunks of prompts are written so that all prompts end at the same token position, and decode steps write behind it in place.
The dynamic cache of transformers copies its whole content for each new token.
"""

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from demur.engine.prefill import PrefilledChunk


class BufferLayer(DynamicLayer):  # type: ignore[misc]
    """One layer: `keys` and `values` are views of the filled part of `buffers`, which have a fixed width."""

    def __init__(self, keys: Tensor, values: Tensor, rows: int, filled: int, room: int) -> None:
        """Empty buffers for `filled + room` tokens in the form of a chunk's keys and values, (row, head, seq, width)."""
        super().__init__()
        self.lazy_initialization(keys, values)
        # Zeros, because the space in front of a shorter row is masked, and a mask does not stop a NaN.
        self.buffers = [one.new_zeros(rows, one.shape[1], filled + room, one.shape[3]) for one in (keys, values)]
        self._fill(filled)

    def _fill(self, tokens: int) -> None:
        self.keys, self.values = (buffer[:, :, :tokens] for buffer in self.buffers)

    def put(self, rows: Tensor, keys: Tensor, values: Tensor) -> None:
        """Write some rows' prompts so that they end at the last filled position."""
        end = self.keys.shape[2]
        for buffer, given in zip(self.buffers, (keys, values), strict=True):
            buffer[rows, :, end - given.shape[2] : end] = given

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Append new tokens; transformers calls this in each forward pass."""
        start = self.keys.shape[2]
        end = start + key_states.shape[2]
        for buffer, given in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = given
        self._fill(end)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows."""
        filled = self.keys.shape[2]
        self.buffers = [buffer[indices] for buffer in self.buffers]
        self._fill(filled)


class Buffers:
    """The buffers of a batch of `rows` prompts up to `width` tokens long with `room` for new ones, filled chunk by chunk."""

    def __init__(self, rows: int, width: int, room: int) -> None:
        self._rows, self._width, self._room = rows, width, room
        self._mask: Tensor | None = None
        self.cache = DynamicCache()

    def put(self, chunk: PrefilledChunk) -> None:
        """Write the rows of a chunk."""
        own = range(len(chunk.rows))
        if self._mask is None:
            self._mask = chunk.mask.new_zeros(self._rows, self._width)
            for found in chunk.cache.layers:
                # Layers that text does not run through have no keys and values.
                if found.is_initialized:
                    self.cache.layers.append(BufferLayer(found.keys, found.values, self._rows, self._width, self._room))
                else:
                    self.cache.layers.append(DynamicLayer())
        # An index on the CPU works on every device; the layers of a spread model are on several.
        rows = torch.tensor(chunk.rows)
        self._mask[rows, self._width - chunk.mask.shape[1] :] = chunk.mask
        for layer, buffer in enumerate(self.cache.layers):
            if isinstance(buffer, BufferLayer):
                buffer.put(rows, *chunk.keys_and_values(layer, own))

    @property
    def mask(self) -> Tensor:
        """Which token positions are real and not padding, (row, seq)."""
        assert self._mask is not None
        return self._mask
