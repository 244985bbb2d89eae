"""Prompts passed once through the model, each with its own edits, as far as they differ.

A chunk of prompts of nearly one length is passed at a time. Rows that are still equal run once (`row_sharing.py`), and what all
prompts begin with is passed once for each set of edits and kept as keys and values. Shorter rows of a chunk pass the end of it
again in place of padding, so that padding stands in front only, as local attention needs it. The numbers of a row are what they
would be alone, up to rounding.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from demur.engine.batching import group, pad_left, pass_tokens, position_ids
from demur.engine.hooks import edited, observed, parted
from demur.engine.model_lock import in_turn
from demur.engine.prepacked_weights import packed
from demur.engine.row_sharing import Sharing, share_rows, tabulate_shared
from demur.interventions.intervention import Intervention, RowEdits, program
from demur.models.device_placement import input_device
from demur.models.layouts import Layout, d_model_of
from demur.models.memory_budget import MOST_TOKENS, kind_of

WORTH = 128
"""So many tokens have to be saved by passing an opening by itself: that reads all weights once more, for few tokens."""


@dataclass(frozen=True)
class Row:
    """One prompt with what is done to the stream while it is continued."""

    prompt: tuple[int, ...]
    edits: RowEdits = None


@dataclass(frozen=True)
class Look:
    """Points of the stream to read at some positions, counted from the prompt's end; the pass ends behind the last of them."""

    points: tuple[int, ...]
    positions: tuple[int, ...] = (-1,)


@dataclass(frozen=True, eq=False)
class Passed:
    """Some rows behind the model.

    `mask` says which columns are theirs. `logits` follow each row's last token; where a `Look` was given they are empty, and
    `states` holds what was seen, in float32 on the processor. `cache` is empty where nothing was to be kept.
    """

    rows: list[int]
    mask: Int[Tensor, "row seq"]
    logits: Float[Tensor, "row vocab"]
    states: Float[Tensor, "row point position d_model"]
    cache: DynamicCache
    sharing: Sharing

    def kept(self, layer: int, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Keys and values of some rows in a layer, each (row, head, seq, width)."""
        found = self.cache.layers[layer]
        at = self.sharing.at(layer)
        # On the processor: a spread model's layers are on several devices.
        places = torch.tensor([at[row] for row in rows])
        return found.keys[places], found.values[places]


@dataclass(frozen=True, eq=False)
class Opening:
    """What all prompts begin with: `length` tokens of it, passed once for each of the rows' programs where that is worth it."""

    length: int
    passed: Passed | None
    places: Mapping[tuple[Intervention, ...], int]

    def kept(self, layer: int, programs: Sequence[tuple[Intervention, ...]], front: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer for rows with these programs, each (row, head, seq, width), behind their padding in front.

        What does not fit behind the padding is left out at the end.
        """
        assert self.passed is not None
        found = self.passed.kept(layer, [self.places[one] for one in programs])
        # A column of padding gets the first token's: masked, and finite.
        columns = (torch.arange(self.length) - front[:, None]).clamp(min=0)[:, None, :, None]
        keys, values = (one.gather(2, columns.to(one.device).expand_as(one)) for one in found)
        return keys, values


def opening_of(model: PreTrainedModel, layout: Layout, rows: Sequence[Row], pad_id: int, look: Look | None = None) -> Opening:
    """The opening of these rows; what is looked at lies behind it. Call it under `torch.inference_mode`."""
    prompts, programs = [row.prompt for row in rows], [program(row.edits) for row in rows]
    places = {one: place for place, one in enumerate(dict.fromkeys(programs))}
    read = 1 if look is None else -min(look.positions)
    common = min(_common(prompts), min(map(len, prompts)) - read)
    # All programs pass it together: one that is long, for many of them, would not fit into memory.
    if common * (len(rows) - len(places)) < WORTH or common * len(places) > MOST_TOKENS[kind_of(input_device(model))]:
        return Opening(0, None, {})
    # Nothing is read of it, but it has to go as far as what follows.
    same = None if look is None else replace(look, positions=(-1,))
    begun = [Row(prompts[0][:common], one) for one in places]
    passed = pass_chunk(model, layout, begun, range(len(begun)), pad_id, Opening(0, None, {}), same)
    return Opening(common, passed, places)


def _common(prompts: Sequence[tuple[int, ...]]) -> int:
    """How many tokens all prompts begin with: as many as the first and the last in order do."""
    first, last = min(prompts), max(prompts)
    return next((place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))


def prefill(model: PreTrainedModel, layout: Layout, rows: Sequence[Row], pad_id: int) -> Iterator[Passed]:
    """All rows, chunk after chunk, longest first. Call it under `torch.inference_mode`."""
    prompts, opening = [row.prompt for row in rows], opening_of(model, layout, rows, pad_id)
    for indices in group(list(map(len, prompts)), pass_tokens(model), even=True, like=prompts):
        yield pass_chunk(model, layout, rows, indices, pad_id, opening)


@in_turn
def pass_chunk(
    model: PreTrainedModel,
    layout: Layout,
    rows: Sequence[Row],
    indices: Sequence[int],
    pad_id: int,
    opening: Opening,
    look: Look | None = None,
    *,
    keep: bool = True,
) -> Passed:
    """Some of the rows, behind their opening. Call it under `torch.inference_mode`.

    `keep` says whether something will follow these rows, so that their keys and values are kept.
    """
    device, width, n_layers = input_device(model), d_model_of(model), len(layout.find_blocks(model))
    prompts, edits = [rows[i].prompt for i in indices], [rows[i].edits for i in indices]
    sharing = share_rows(prompts, edits, layout, n_layers)
    ids, mask = pad_left([prompts[row] for row in sharing.running[0]], pad_id, device)
    ids = ids[:, opening.length :]
    cache, cached = DynamicCache(), keep or opening.passed is not None
    if opening.passed is not None:
        programs = [program(one) for one in edits]
        front = torch.tensor([mask.shape[1] - len(prompt) for prompt in prompts])
        for layer, kept in enumerate(opening.passed.cache.layers):
            if not kept.is_initialized:  # text does not run through it
                continue
            running = list(sharing.running[sharing.span(layer)])
            cache.update(*opening.kept(layer, [programs[row] for row in running], front[running]), layer)
    table = tabulate_shared(sharing, edits, layout, n_layers, width, device)
    points, positions = ((), ()) if look is None else (look.points, look.positions)
    if points:
        table = {where: steps for where, steps in table.items() if where <= max(points)}
    logits, states = torch.empty(len(edits), 0), torch.empty(len(edits), 0, 0, width)
    with (
        packed(model, layout),
        parted(model, layout, sharing),
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
        logits = output.logits[list(sharing.standing[-1]), -1]
    if points:
        states = torch.stack([taken[where][list(sharing.at(where // 2))] for where in points], dim=1)
    return Passed(list(indices), mask[list(sharing.standing[0])], logits, states, cache, sharing)
