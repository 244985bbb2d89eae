"""Prompts passed once through the model, each with its own edits, as far as they differ.

A chunk of prompts of nearly one length is passed at a time. Rows that are still equal run once (`sharing.py`), and what all
prompts begin with is passed once for each set of edits and kept as keys and values. The numbers of a row are what they would be
alone, up to rounding.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from demur.batching import group, pad_left, position_ids
from demur.interventions import Intervention, RowEdits, program
from demur.layouts import Layout, d_model_of
from demur.residual import edited, observed, parted
from demur.sharing import Sharing, share_rows, tabulate_shared


@dataclass(frozen=True)
class Row:
    """One prompt with what is done to the stream while it is continued."""

    prompt: tuple[int, ...]
    edits: RowEdits = None


CHUNK_TOKENS = 4096
"""Tokens of a chunk, padding included: enough to keep the processor at its rate, little enough for its caches."""
WASTE = 0.1
"""Part of a chunk that may be padding."""
FULL_CHUNK = 512
"""Tokens below which a pass is slow for its size, since it reads all weights for few tokens."""


@dataclass(frozen=True)
class Look:
    """Points of the stream to read at some positions, counted from the prompt's end; the pass ends behind the last of them."""

    points: tuple[int, ...]
    positions: tuple[int, ...] = (-1,)


@dataclass(frozen=True, eq=False)
class Passed:
    """Some rows behind the model.

    `mask` says which columns are theirs. `logits` follow each row's last token; where a `Look` was given they are empty, and
    `states` holds what was seen, in float32 on the processor.
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
        places = torch.tensor([at[row] for row in rows], device=found.keys.device)
        return found.keys[places], found.values[places]


def prefill(
    model: PreTrainedModel,
    layout: Layout,
    rows: Sequence[Row],
    pad_id: int,
    *,
    look: Look | None = None,
    chunk_tokens: int = CHUNK_TOKENS,
) -> Iterator[Passed]:
    """All rows, chunk after chunk, longest first. Call it under `torch.inference_mode`."""
    prompts, programs = [row.prompt for row in rows], [program(row.edits) for row in rows]
    shared = _worth_sharing(prompts, programs, look)
    begun: dict[tuple[Intervention, ...], int] = {one: place for place, one in enumerate(dict.fromkeys(programs))}
    before = None
    if shared:
        opening = [Row(prompts[0][:shared], one) for one in begun]
        # Nothing is read of the beginning itself, but it has to go as far as the rest.
        before = _pass(model, layout, opening, [], pad_id, None if look is None else replace(look, positions=(-1,)), None, ())
    # Padding between a common beginning and the rest would count in the windows of local attention.
    chunks = group(list(map(len, prompts)), chunk_tokens, waste=0.0 if shared else WASTE, like=prompts)
    for indices in chunks:
        chunk = [Row(prompts[i][shared:], programs[i]) for i in indices]
        yield _pass(model, layout, chunk, indices, pad_id, look, before, [begun[programs[i]] for i in indices])


def _worth_sharing(prompts: Sequence[Sequence[int]], programs: Sequence[object], look: Look | None) -> int:
    """How many tokens at the beginning of all prompts are to be passed once for each program; what is read lies behind them."""
    read = 1 if look is None else -min(look.positions)
    common = min(len(os.path.commonprefix(list(prompts))), min(map(len, prompts)) - read)
    saved = common * (len(prompts) - len(set(programs)))
    # Behind a common beginning, only rows of one length share a chunk.
    chunk = sum(len(prompt) - common for prompt in prompts) / len(set(map(len, prompts)))
    return common if saved > 0 and chunk >= FULL_CHUNK else 0


def _pass(
    model: PreTrainedModel,
    layout: Layout,
    rows: Sequence[Row],
    indices: list[int],
    pad_id: int,
    look: Look | None,
    before: Passed | None,
    openings: Sequence[int],
) -> Passed:
    """One chunk, behind its rows' openings in `before` where there is one."""
    device, width, n_layers = next(model.parameters()).device, d_model_of(model), len(layout.find_blocks(model))
    edits = [row.edits for row in rows]
    sharing = share_rows([row.prompt for row in rows], edits, layout, n_layers)
    called, last = sharing.running[0], sharing.standing[-1]
    ids, mask = pad_left([rows[i].prompt for i in called], pad_id, device)
    cache = DynamicCache()
    if before is not None:
        mask = torch.cat((torch.ones_like(before.mask[:1]).expand(len(called), -1), mask), dim=1)
        for layer in range(len(before.cache.layers)):
            cache.update(*before.kept(layer, [openings[i] for i in sharing.running[sharing.span(layer)]]), layer)
    table = tabulate_shared(sharing, edits, layout, n_layers, width, device)
    if look is not None:
        table = {where: steps for where, steps in table.items() if where <= max(look.points)}
    logits, states = torch.empty(len(rows), 0), torch.empty(len(rows), 0, 0, width)
    points, positions = ((), ()) if look is None else (look.points, look.positions)
    with (
        parted(model, layout, sharing),
        edited(model, layout, table, prompt_width=mask.shape[1]),
        observed(model, layout, points, positions, stop=True) as taken,
    ):
        output = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=position_ids(mask)[:, -ids.shape[1] :],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits = output.logits[list(last), -1]
    if look is not None:
        states = torch.stack([taken[where][list(sharing.at(where // 2))] for where in look.points], dim=1)
    return Passed(indices, mask[list(sharing.standing[0])], logits, states, cache, sharing)
