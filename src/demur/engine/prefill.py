"""Prefill: runs all prompts once through the model, each with its own edits. Work that prompts share is done once.

Prompts of similar length run together in a chunk. Rows that are still equal run once (`row_sharing.py`). The prefix that all
prompts share runs once for each sequence of edits, and its keys and values are kept. Local attention requires all padding at the
start of a row. So a row that is shorter than its chunk is not padded after the prefix: it recomputes the end of the prefix. The
numbers of a row are the same as for the row alone, up to rounding.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from demur.engine.batching import group, pad_left, pass_tokens, position_ids
from demur.engine.engine_protocol import Row
from demur.engine.hooks import edited, observed, split_rows
from demur.engine.model_state import one_thread_at_a_time
from demur.engine.row_sharing import RowSharing, share_rows, tabulate_shared
from demur.interventions.edit_table import EditTable
from demur.interventions.intervention import Intervention, RowEdits, edit_sequence
from demur.models.device_placement import input_device
from demur.models.layouts import Layout, Point, d_model_of
from demur.models.memory_budget import MOST_TOKENS, kind_of
from demur.models.prepacked_weights import prepacked

WORTH = 128
"""The least number of tokens that a separate pass over the shared prefix must save, because this pass reads all weights again."""


@dataclass(frozen=True)
class ReadSpec:
    """Where the stream is read; the forward pass ends after the last of the points.

    Attributes:
        points: points of the stream.
        positions: token positions, counted from the prompt's end.
    """

    points: tuple[Point, ...]
    positions: tuple[int, ...] = (-1,)


@dataclass(frozen=True, eq=False)
class PrefilledChunk:
    """Some rows that have run through the model.

    Attributes:
        rows: the indices of the rows.
        mask: which token positions are real and not padding.
        logits: logits after each row's last token; empty if a `ReadSpec` was given.
        states: the activations that were read, in float32 on the CPU; empty without a `ReadSpec`.
        cache: keys and values of the rows that ran; empty if they were not kept.
        sharing: which rows ran, and for which rows each of them ran.
    """

    rows: list[int]
    mask: Int[Tensor, "row seq"]
    logits: Float[Tensor, "row vocab"]
    states: Float[Tensor, "row point position d_model"]
    cache: DynamicCache
    sharing: RowSharing

    def keys_and_values(self, layer: int, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Keys and values of some rows of the chunk in a layer, each (row, head, seq, width)."""
        found = self.cache.layers[layer]
        places_at = self.sharing.places_at(layer)
        # An index on the CPU works on every device; the layers of a spread model are on several.
        places = torch.tensor([places_at[row] for row in rows])
        return found.keys[places], found.values[places]


@dataclass(frozen=True, eq=False)
class SharedPrefix:
    """The tokens that all prompts begin with.

    Attributes:
        length: the number of tokens; 0 if a separate pass is not worth it.
        chunk: the result of these tokens, once for each sequence of edits; None if the length is 0.
        places: the place of each sequence of edits in the chunk.
    """

    length: int
    chunk: PrefilledChunk | None
    places: Mapping[tuple[Intervention, ...], int]

    def keys_and_values(
        self, layer: int, sequences: Sequence[tuple[Intervention, ...]], padding: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer for rows with these sequences of edits, each (row, head, seq, width).

        `padding` is the number of padding tokens at the start of each row. The end of the prefix is cut off if it does not fit.
        """
        assert self.chunk is not None
        found = self.chunk.keys_and_values(layer, [self.places[one] for one in sequences])
        # Padding gets the keys and values of the first token, because even masked ones have to be finite.
        positions = (torch.arange(self.length) - padding[:, None]).clamp(min=0)[:, None, :, None]
        keys, values = (one.gather(2, positions.to(one.device).expand_as(one)) for one in found)
        return keys, values


NO_PREFIX = SharedPrefix(0, None, {})


def run_shared_prefix(
    model: PreTrainedModel, layout: Layout, rows: Sequence[Row], pad_id: int, spec: ReadSpec | None = None
) -> SharedPrefix:
    """Find and run the prefix that these rows share, up to the first position that `spec` reads.

    Call it under `torch.inference_mode`.
    """
    prompts, sequences = [row.prompt for row in rows], [edit_sequence(row.edits) for row in rows]
    places = {one: place for place, one in enumerate(dict.fromkeys(sequences))}
    after = 1 if spec is None else -min(spec.positions)
    length = min(_common_length(prompts), min(map(len, prompts)) - after)
    # The prefix runs once for each sequence of edits, all in one batch, which has to fit into memory.
    if length * (len(rows) - len(places)) < WORTH or length * len(places) > MOST_TOKENS[kind_of(input_device(model))]:
        return NO_PREFIX
    # Nothing is read from the prefix, but the tokens after it need its keys and values up to the last point.
    same_depth = None if spec is None else replace(spec, positions=(-1,))
    prefixes = [Row(prompts[0][:length], one) for one in places]
    chunk = prefill_chunk(model, layout, prefixes, range(len(prefixes)), pad_id, NO_PREFIX, same_depth)
    return SharedPrefix(length, chunk, places)


def _common_length(prompts: Sequence[tuple[int, ...]]) -> int:
    """The length of the prefix that all prompts share: that of the first and the last prompt in sorted order."""
    first, last = min(prompts), max(prompts)
    return next((place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))


def prefill(model: PreTrainedModel, layout: Layout, rows: Sequence[Row], pad_id: int) -> Iterator[PrefilledChunk]:
    """Run all rows, chunk by chunk, longest first. Call it under `torch.inference_mode`."""
    prompts, prefix = [row.prompt for row in rows], run_shared_prefix(model, layout, rows, pad_id)
    for indices in group(list(map(len, prompts)), pass_tokens(model), even=True, like=prompts):
        yield prefill_chunk(model, layout, rows, indices, pad_id, prefix)


@one_thread_at_a_time
def prefill_chunk(
    model: PreTrainedModel,
    layout: Layout,
    rows: Sequence[Row],
    indices: Sequence[int],
    pad_id: int,
    prefix: SharedPrefix,
    spec: ReadSpec | None = None,
    *,
    keep: bool = True,
) -> PrefilledChunk:
    """Run some of the rows, after their shared prefix. Call it under `torch.inference_mode`.

    `keep` says whether to keep keys and values, for tokens that follow.
    """
    device, width, n_layers = input_device(model), d_model_of(model), len(layout.find_blocks(model))
    prompts, edits = [rows[i].prompt for i in indices], [rows[i].edits for i in indices]
    sharing = share_rows(prompts, edits, layout, n_layers)
    ids, mask = pad_left([prompts[row] for row in sharing.running[0]], pad_id, device)
    ids = ids[:, prefix.length :]
    cache, cached = DynamicCache(), keep or prefix.chunk is not None
    _put_prefix(cache, prefix, prompts, edits, sharing, mask.shape[1])
    table = _table_up_to(tabulate_shared(sharing, edits, layout, n_layers, width, device), spec)
    points, positions = ((), ()) if spec is None else (spec.points, spec.positions)
    logits, states = torch.empty(len(edits), 0), torch.empty(len(edits), 0, 0, width)
    with (
        prepacked(model, layout),
        split_rows(model, layout, sharing),
        edited(model, layout, table, prompt_width=mask.shape[1], stops=bool(points)),
        observed(model, layout, points, positions, stop=True) as taken,
    ):
        output = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=position_ids(mask)[:, -ids.shape[1] :],
            past_key_values=cache if cached else None,
            use_cache=cached,
            logits_to_keep=1,
        )
        logits = output.logits[list(sharing.places[-1]), -1]
    if points:
        states = torch.stack([taken[where][list(sharing.places_at(where.layer))] for where in points], dim=1)
    return PrefilledChunk(list(indices), mask[list(sharing.places[0])], logits, states, cache, sharing)


def _put_prefix(
    cache: DynamicCache,
    prefix: SharedPrefix,
    prompts: Sequence[tuple[int, ...]],
    edits: Sequence[RowEdits],
    sharing: RowSharing,
    width: int,
) -> None:
    """Fill a cache with the shared prefix of the rows that run, padded to `width`."""
    if prefix.chunk is None:
        return
    sequences = [edit_sequence(one) for one in edits]
    padding = torch.tensor([width - len(prompt) for prompt in prompts])
    for layer, kept in enumerate(prefix.chunk.cache.layers):
        if not kept.is_initialized:  # this layer does not run for text
            continue
        running = list(sharing.running[sharing.span(layer)])
        cache.update(*prefix.keys_and_values(layer, [sequences[row] for row in running], padding[running]), layer)


def _table_up_to(table: EditTable, spec: ReadSpec | None) -> EditTable:
    """The part of a table up to the last point that is read."""
    if spec is None or not spec.points:
        return table
    last = max(spec.points)
    return {where: steps for where, steps in table.items() if where <= last}
