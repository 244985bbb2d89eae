"""Greedy decoding over token ids.

Every row may have its own edits. In float32 each row gets exactly the tokens that it would get alone. In lower precision it may
get another token if two logits are almost equal. A row ends at a stop token (which is kept as its last token), when
`Decoding.enough` returns True, or after `max_new_tokens`. Rows that have ended are taken out of the batch.

The KV cache of a batch has buffers of a fixed size, made once with room for all new tokens. Prompts are written so that they all
end at the same token position. Decode steps write the next positions in place. The dynamic cache of transformers would copy its
whole content for each new token.
"""

from collections.abc import Collection, Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from demur.core.errors import InputError, NotFinite
from demur.engine.batching import in_batches, pad_left, position_ids
from demur.engine.engine_protocol import Decoding, Row
from demur.engine.hooks import edited
from demur.engine.model_state import one_thread_at_a_time
from demur.engine.prefill import PrefilledChunk, prefill
from demur.interventions.edit_table import tabulate
from demur.models.device_placement import input_device, weights_dtype
from demur.models.layouts import Layout, d_model_of, kv_width_of
from demur.models.memory_budget import LEAST_TOKENS, MOST_TOKENS, fitting, kind_of
from demur.models.prepacked_weights import prepacked

LEAVE = 4
"""Ended rows are taken out once they are one in four of the batch. Taking them out costs about a tenth of a decode step."""


class NewTokens:
    """The new tokens of each row, and which rows have ended."""

    def __init__(self, rows: int, decoding: Decoding) -> None:
        self.tokens: list[list[int]] = [[] for _ in range(rows)]
        self.ended = set[int]()
        self._decoding = decoding

    def add(self, logits: Float[Tensor, "row vocab"], of: Sequence[int]) -> Int[Tensor, "row 1"]:
        """The likeliest next token of some rows. It is recorded for those rows that have not ended."""
        token = _likeliest(logits, of, self.ended)
        for index, new in zip(of, token.tolist(), strict=True):
            if index not in self.ended:
                own = self.tokens[index]
                own.append(new)
                if len(own) == self._decoding.max_new_tokens or self._decoding.ends(own):
                    self.ended.add(index)
        return token[:, None]

    def should_shrink(self, batch: Sequence[int]) -> bool:
        """Whether enough rows of a batch have ended for it to be worth taking them out."""
        return LEAVE * len(self.ended.intersection(batch)) >= len(batch)


class BufferLayer(DynamicLayer):  # type: ignore[misc]
    """One layer: `keys` and `values` are views of the filled part of `buffers`, which have a fixed width."""

    def __init__(self, keys: Tensor, values: Tensor, rows: int, filled: int, room: int) -> None:
        """Buffers for `filled + room` tokens, otherwise shaped like a chunk's `keys` and `values`, (row, head, seq, width)."""
        super().__init__()
        self.lazy_initialization(keys, values)
        # Zeros, because not all padding is written, and a mask does not stop a NaN.
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
    """The KV cache of a batch, filled chunk by chunk: `rows` prompts of up to `width` tokens, with `room` for new tokens."""

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


@one_thread_at_a_time
@torch.inference_mode()
def decode_batch(model: PreTrainedModel, layout: Layout, rows: Sequence[Row], decoding: Decoding) -> list[list[int]]:
    """New tokens of each row, all rows in one batch. Raises `WorkError` if the logits of a row are not finite."""
    device, n_layers, width = input_device(model), len(layout.find_blocks(model)), d_model_of(model)
    new_tokens, batch = NewTokens(len(rows), decoding), list(range(len(rows)))
    prompt_width = max(len(row.prompt) for row in rows)
    if decoding.use_cache:
        buffers, chunk = prefilled(model, layout, rows, decoding, new_tokens)
        cache, mask = buffers.cache, buffers.mask
    else:
        cache = None
        chunk, mask = pad_left([row.prompt for row in rows], decoding.pad_id, device)
    while len(new_tokens.ended) < len(rows):
        if new_tokens.should_shrink(batch):
            # An index on the CPU works on every device; the cache of a spread model is on several.
            kept = torch.tensor([place for place, index in enumerate(batch) if index not in new_tokens.ended])
            batch = [index for index in batch if index not in new_tokens.ended]
            chunk, mask = chunk[kept], mask[kept]
            if cache is not None:
                cache.batch_select_indices(kept)
        table = tabulate([rows[i].edits for i in batch], layout, n_layers, width, device)
        with prepacked(model, layout), edited(model, layout, table, prompt_width=prompt_width):
            while not new_tokens.should_shrink(batch):
                if cache is not None:
                    mask = torch.cat((mask, torch.ones_like(mask[:, :1])), dim=1)
                output = model(
                    input_ids=chunk,
                    attention_mask=mask,
                    position_ids=position_ids(mask)[:, -chunk.shape[1] :],
                    past_key_values=cache,
                    use_cache=decoding.use_cache,
                    logits_to_keep=1,
                )
                token = new_tokens.add(output.logits[:, -1], batch)
                if len(new_tokens.ended) == len(rows):
                    break
                if cache is None:
                    chunk, mask = torch.cat((chunk, token), dim=1), torch.cat((mask, torch.ones_like(mask[:, :1])), dim=1)
                else:
                    chunk = token
    return new_tokens.tokens


def prefilled(
    model: PreTrainedModel, layout: Layout, rows: Sequence[Row], decoding: Decoding, new_tokens: NewTokens
) -> tuple[Buffers, Int[Tensor, "row 1"]]:
    """Run all prompts. Returns their KV cache and each row's first new token, which is also added to `new_tokens`.

    Call it under `torch.inference_mode`.
    """
    buffers = Buffers(len(rows), max(len(row.prompt) for row in rows), decoding.max_new_tokens - 1)
    first = torch.empty(len(rows), 1, dtype=torch.long, device=input_device(model))
    for chunk in prefill(model, layout, rows, decoding.pad_id):
        buffers.put(chunk)
        first[chunk.rows] = new_tokens.add(chunk.logits, chunk.rows)
    return buffers, first


def _likeliest(logits: Float[Tensor, "row vocab"], batch: Sequence[int], ended: Collection[int] = ()) -> Int[Tensor, " row"]:
    """Each row's token with the largest logit. Raises `NotFinite`, but not for a row that has ended: its token is not used."""
    require_finite(logits, batch, ended)
    # max returns the first of equal values, as argmax does, but argmax takes five times as long in bfloat16 on a CPU.
    return logits.max(-1).indices


def require_finite(logits: Float[Tensor, "row vocab"], batch: Sequence[int], ended: Collection[int] = ()) -> None:
    """Raises `NotFinite` with the index of a row whose logits are not finite, unless the row has ended."""
    # The sum is not finite if any term is not finite. It takes only one pass.
    finite = torch.isfinite(logits.sum(-1, dtype=torch.float32))
    if not finite.all():
        for place in torch.nonzero(~finite)[:, 0].tolist():
            if batch[place] not in ended:
                raise NotFinite("the logits", batch[place], logits.dtype)


def decode(
    model: PreTrainedModel,
    layout: Layout,
    rows: Sequence[Row],
    decoding: Decoding,
    *,
    batch_tokens: int | None = None,
    batch_rows: int | None = None,
) -> Iterator[dict[int, list[int]]]:
    """Decode all rows, batch after batch. Rows of similar length share a batch, longest first.

    Args:
        model: the model.
        layout: the layout of its family.
        rows: prompts with their edits.
        decoding: the settings.
        batch_tokens: the most tokens in a batch, padding and new ones included. By default a batch is as large as
            memory allows, up to a size beyond which decoding is no faster.
        batch_rows: the most rows in a batch.

    Returns:
        For each finished batch, row index -> new tokens.

    Raises:
        WorkError: if one row alone does not fit into memory (a larger batch is halved), or if logits are not finite.
    """
    lengths = [len(row.prompt) + decoding.max_new_tokens for row in rows]

    def work(indices: list[int]) -> list[list[int]]:
        try:
            return decode_batch(model, layout, [rows[i] for i in indices], decoding)
        except NotFinite as error:
            raise error.of_row(indices[error.row]) from error

    budget = fitting_tokens(model, layout) if batch_tokens is None else batch_tokens
    prompts = [row.prompt for row in rows]
    found = in_batches(lengths, work, model=model, batch_tokens=budget, batch_rows=batch_rows, like=prompts)
    yield from (dict(zip(indices, tokens, strict=True)) for indices, tokens in found)


def fitting_tokens(model: PreTrainedModel, layout: Layout) -> int:
    """The number of tokens, new ones included, whose KV cache fills a third of the free memory; at most `MOST_TOKENS`."""
    device, width = input_device(model), kv_width_of(model.config.get_text_config())
    if width is None:
        raise InputError(
            "the config does not give the width of keys and values, so no batch size can be found; give batch_tokens"
        )
    each = 2 * len(layout.find_blocks(model)) * width * weights_dtype(model).itemsize
    return max(LEAST_TOKENS, fitting(each, str(device), MOST_TOKENS[kind_of(device)]))
