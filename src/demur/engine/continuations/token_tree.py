"""Runs many continuations of each prompt as a tree: the prompt once, and what continuations share once.

One level of the tree is one decode step. Its batch has a row for each branch, with a copy of the KV cache of the branch before
it. So a branch gets the same numbers as the same tokens in decoding, up to rounding.
"""

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from demur.core.errors import InputError, NotFinite
from demur.engine.batching import in_batches, position_ids
from demur.engine.decode import Buffers, fitting_tokens, require_finite
from demur.engine.engine_protocol import Branch, Follow, Row
from demur.engine.hooks import edited
from demur.engine.model_state import one_thread_at_a_time
from demur.engine.prefill import prefill
from demur.interventions.edit_table import tabulate
from demur.models.device_placement import input_device
from demur.models.layouts import Layout, d_model_of
from demur.models.prepacked_weights import prepacked


@dataclass(frozen=True, eq=False)
class Level:
    """Branches of equal length whose last token has not run yet.

    Attributes:
        branches: the branches.
        places: for each branch, the place in `cache` and `mask` of the branch that it continues.
        cache: keys and values of the branches that are continued.
        mask: which of their token positions are real and not padding, (place, seq).
    """

    branches: tuple[Branch, ...]
    places: tuple[int, ...]
    cache: DynamicCache
    mask: Tensor

    def part(self, which: slice) -> "Level":
        """Some of the branches."""
        return Level(self.branches[which], self.places[which], self.cache, self.mask)


@one_thread_at_a_time
@torch.inference_mode()
def explore_batch(
    model: PreTrainedModel,
    layout: Layout,
    rows: Sequence[Row],
    follow: Follow,
    *,
    max_new_tokens: int,
    pad_id: int,
    batch_tokens: int,
) -> None:
    """Run the trees of some rows, level by level. A level that is too large for one batch is cut, and its parts run in turn."""
    width = max(len(row.prompt) for row in rows)
    buffers = Buffers(len(rows), width, max_new_tokens - 1)
    branches, places = list[Branch](), list[int]()
    for chunk in prefill(model, layout, rows, pad_id):
        buffers.put(chunk)
        grown, at = _grown([Branch(row) for row in chunk.rows], chunk.logits, follow)
        branches += grown
        places += [chunk.rows[place] for place in at]
    most_rows = max(1, batch_tokens // (width + max_new_tokens))
    pending = [Level(tuple(branches), tuple(places), buffers.cache, buffers.mask)]
    # The caches of a level are freed as soon as nothing that is pending needs them.
    del buffers
    while pending:
        level = pending.pop()
        # A branch of this length would make a continuation longer than allowed.
        if not level.branches or len(level.branches[0].tokens) >= max_new_tokens:
            continue
        if len(level.branches) > most_rows:
            pending += [level.part(slice(most_rows, None)), level.part(slice(most_rows))]
            continue
        pending.append(_next_level(model, layout, rows, level, follow, width))


def _next_level(
    model: PreTrainedModel, layout: Layout, rows: Sequence[Row], level: Level, follow: Follow, prompt_width: int
) -> Level:
    """Run the last token of each branch of a level."""
    device = input_device(model)
    # An index on the CPU works on every device; the cache of a spread model is on several.
    places = torch.tensor(level.places)
    cache = selected_rows(level.cache, places)
    mask = torch.cat((level.mask[places], level.mask.new_ones(len(places), 1)), dim=1)
    ids = torch.tensor([[branch.tokens[-1]] for branch in level.branches], device=device)
    edits = [rows[branch.row].edits for branch in level.branches]
    table = tabulate(edits, layout, len(layout.find_blocks(model)), d_model_of(model), device)
    with prepacked(model, layout), edited(model, layout, table, prompt_width=prompt_width):
        output = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=position_ids(mask)[:, -1:],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
    grown, at = _grown(level.branches, output.logits[:, -1], follow)
    return Level(tuple(grown), tuple(at), cache, mask)


def _grown(branches: Sequence[Branch], logits: Tensor, follow: Follow) -> tuple[list[Branch], list[int]]:
    """The branches that are one token longer, and for each the place of the branch that it continues."""
    require_finite(logits, [branch.row for branch in branches])
    grown, places = list[Branch](), list[int]()
    for place, (branch, tokens) in enumerate(zip(branches, follow(branches, logits), strict=True)):
        grown += [Branch(branch.row, (*branch.tokens, token)) for token in tokens]
        places += [place] * len(tokens)
    return grown, places


def selected_rows(cache: DynamicCache, places: Tensor) -> DynamicCache:
    """A copy of some rows of a cache, some of them several times. The cache itself stays as it is."""
    chosen = DynamicCache()
    chosen.layers = [copy(layer) for layer in cache.layers]
    chosen.batch_select_indices(places)
    return chosen


def explore(
    model: PreTrainedModel,
    layout: Layout,
    rows: Sequence[Row],
    follow: Follow,
    *,
    max_new_tokens: int,
    pad_id: int = 0,
    batch_tokens: int | None = None,
) -> Iterator[list[int]]:
    """Run the trees of all rows, batch after batch. Rows of similar length share a batch, longest first.

    Args:
        model: the model.
        layout: the layout of its family.
        rows: prompts with their edits.
        follow: gets some branches with the logits after each, and chooses the tokens to run after each. It is called again from
            the first branch on for the rows of a batch that did not fit into memory.
        max_new_tokens: the most tokens in a continuation, counting the one that is not run.
        pad_id: the token used as padding.
        batch_tokens: the most tokens in a batch, padding and new ones included. By default a batch is as large as memory allows.

    Returns:
        For each finished batch, the indices of its rows.

    Raises:
        WorkError: if one row alone does not fit into memory.
        NotFinite: with the index of a row with logits that are not finite.
    """
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens must be at least 1, not {max_new_tokens}")
    budget = fitting_tokens(model, layout) if batch_tokens is None else batch_tokens

    def work(indices: list[int]) -> None:
        def named(branches: Sequence[Branch], logits: Tensor) -> Sequence[Sequence[int]]:
            return follow([Branch(indices[branch.row], branch.tokens) for branch in branches], logits)

        try:
            explore_batch(
                model,
                layout,
                [rows[i] for i in indices],
                named,
                max_new_tokens=max_new_tokens,
                pad_id=pad_id,
                batch_tokens=budget,
            )
        except NotFinite as error:
            raise error.of_row(indices[error.row]) from error

    prompts = [row.prompt for row in rows]
    lengths = [len(prompt) + max_new_tokens for prompt in prompts]
    yield from (indices for indices, _ in in_batches(lengths, work, model=model, batch_tokens=budget, like=prompts))
