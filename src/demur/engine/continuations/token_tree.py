"""Runs many continuations of each prompt as a tree: the prompt once, and what continuations share once.

A branch gets the same numbers as the same tokens in decoding, up to rounding.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from demur.core.errors import InputError
from demur.engine.batching import in_batches, position_ids
from demur.engine.continuations.tree_levels import HELD, Level, grown, rows_of_all, walk_levels
from demur.engine.decode import Buffers, fitting_tokens
from demur.engine.engine_protocol import Branch, Follow, Row
from demur.engine.hooks import edited
from demur.engine.model_state import one_thread_at_a_time
from demur.engine.prefill import prefill
from demur.interventions.edit_table import tabulate
from demur.models.device_placement import input_device, weights_dtype
from demur.models.layouts import Layout, d_model_of
from demur.models.memory_budget import fitting
from demur.models.prepacked_weights import prepacked

MOST_BRANCHES = 4096
"""The most branches whose logits are in memory at a time."""


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
    """Run the trees of some rows."""
    width = max(len(row.prompt) for row in rows)

    def step(ids: Tensor, mask: Tensor, caches: Sequence[DynamicCache], reached: Sequence[Branch]) -> Tensor:
        edits = [rows[branch.row].edits for branch in reached]
        device = input_device(model)
        table = tabulate(edits, layout, len(layout.find_blocks(model)), d_model_of(model), device)
        with prepacked(model, layout), edited(model, layout, table, prompt_width=width):
            output = model(
                input_ids=ids.to(device),
                attention_mask=mask,
                position_ids=position_ids(mask)[:, -1:],
                past_key_values=caches[0],
                use_cache=True,
                logits_to_keep=1,
            )
        logits: Tensor = output.logits[:, -1]
        return logits

    buffers = Buffers(len(rows), width, 0)
    branches, places = list[Branch](), list[int]()
    for chunk in prefill(model, layout, rows, pad_id):
        buffers.put(chunk)
        longer, at = grown([Branch(row) for row in chunk.rows], chunk.logits, follow)
        branches += longer
        places += [chunk.rows[place] for place in at]
    pending = [Level(tuple(branches), tuple(places), (buffers.cache,), buffers.mask)]
    del buffers  # `pending` alone holds the caches
    most_rows = min(max(1, batch_tokens // (width + max_new_tokens)), _rows_of_logits(model))
    walk_levels(pending, step, follow, most_rows=lambda _: most_rows, max_new_tokens=max_new_tokens)


def _rows_of_logits(model: PreTrainedModel) -> int:
    """How many branches' logits fit into memory, with what is computed from them."""
    each = (1 + HELD) * model.config.get_text_config().vocab_size * weights_dtype(model).itemsize
    return fitting(each, str(input_device(model)), MOST_BRANCHES)


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
        with rows_of_all(indices, follow) as named:
            explore_batch(
                model,
                layout,
                [rows[i] for i in indices],
                named,
                max_new_tokens=max_new_tokens,
                pad_id=pad_id,
                batch_tokens=budget,
            )

    prompts = [row.prompt for row in rows]
    lengths = [len(prompt) + max_new_tokens for prompt in prompts]
    yield from (indices for indices, _ in in_batches(lengths, work, model=model, batch_tokens=budget, like=prompts))
