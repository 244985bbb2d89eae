"""Keys and values of the rows of a batch: one buffer a layer, made once with room for all tokens to come.

Chunks of prompts are put in with their last tokens in one column, and decoding writes behind it in place: transformers' own
dynamic cache copies everything that it holds for each new token.
"""

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from demur.engine.prefill import Passed


class BufferLayer(DynamicLayer):  # type: ignore[misc]
    """One layer: `keys` and `values` are the filled columns of `buffers` of a fixed width."""

    def __init__(self, keys: Tensor, values: Tensor, rows: int, filled: int, room: int) -> None:
        """Empty buffers of `filled + room` columns in the form of a chunk's keys and values, (row, head, seq, width)."""
        super().__init__()
        self.lazy_initialization(keys, values)
        # Zeros, for what lies in front of a shorter row is masked, and a mask does not stop what is not a number.
        self.buffers = [one.new_zeros(rows, one.shape[1], filled + room, one.shape[3]) for one in (keys, values)]
        self._fill(filled)

    def _fill(self, columns: int) -> None:
        self.keys, self.values = (buffer[:, :, :columns] for buffer in self.buffers)

    def put(self, rows: Tensor, keys: Tensor, values: Tensor) -> None:
        """Some rows' prompts, so that they end in the last filled column."""
        columns = self.keys.shape[2]
        for buffer, given in zip(self.buffers, (keys, values), strict=True):
            buffer[rows, :, columns - given.shape[2] : columns] = given

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Transformers' call for each pass: new columns behind the filled ones."""
        start = self.keys.shape[2]
        end = start + key_states.shape[2]
        for buffer, given in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = given
        self._fill(end)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows."""
        columns = self.keys.shape[2]
        self.buffers = [buffer[indices] for buffer in self.buffers]
        self._fill(columns)


class Buffers:
    """The buffers of a batch of `rows` prompts up to `width` tokens long with `room` for new ones, filled chunk by chunk."""

    def __init__(self, rows: int, width: int, room: int) -> None:
        self._rows, self._width, self._room = rows, width, room
        self._mask: Tensor | None = None
        self.cache = DynamicCache()

    def put(self, passed: Passed) -> None:
        """The rows of a chunk."""
        own = range(len(passed.rows))
        if self._mask is None:
            self._mask = passed.mask.new_zeros(self._rows, self._width)
            for found in passed.cache.layers:
                # Layers that this text does not run through keep nothing.
                if found.is_initialized:
                    self.cache.layers.append(BufferLayer(found.keys, found.values, self._rows, self._width, self._room))
                else:
                    self.cache.layers.append(DynamicLayer())
        # On the processor: a spread model's layers are on several devices.
        rows = torch.tensor(passed.rows)
        self._mask[rows, self._width - passed.mask.shape[1] :] = passed.mask
        for layer, buffer in enumerate(self.cache.layers):
            if isinstance(buffer, BufferLayer):
                buffer.put(rows, *passed.kept(layer, own))

    @property
    def mask(self) -> Tensor:
        """Which columns are real tokens, (row, seq)."""
        assert self._mask is not None
        return self._mask
