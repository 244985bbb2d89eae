"""What a model would write next, and how well it predicts a given continuation, for many rows that differ in prompt and edit.

Knows token ids only. Logits are computed at the positions that are read and nowhere else. A row's numbers are what they would be
alone, up to rounding.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from demur.core.errors import NotFinite
from demur.engine.batching import in_batches, pad_left, position_ids
from demur.engine.hooks import edited
from demur.engine.model_lock import in_turn
from demur.engine.prefill import Look, Row, opening_of, pass_chunk
from demur.engine.prepacked_weights import packed
from demur.interventions.intervention import RowEdits, tabulate
from demur.models.device_placement import input_device, weights_dtype
from demur.models.layouts import Layout, d_model_of, point

LOSS_TOKENS = 1024
"""Size of a batch of which logits are made at every position."""


@dataclass(frozen=True, eq=False)
class Next:
    """Some rows' logits (row, vocab) behind the prompt's last token, or its stream (row, layer, d_model) at the layers asked for.

    In float32 on the processor; what was not asked for is empty. `indices` says which rows.
    """

    indices: list[int]
    logits: Float[Tensor, "row vocab"]
    states: Float[Tensor, "row layer d_model"]


def next_tokens(
    model: PreTrainedModel,
    layout: Layout,
    rows: Sequence[Row],
    *,
    layers: Sequence[int] = (),
    pad_id: int = 0,
    batch_tokens: int | None = None,
    finite_only: bool = True,
) -> Iterator[Next]:
    """Batches of rows, longest first, each with its own edits: their logits, or with `layers` their edited `resid_pre` there.

    With `layers` the pass ends behind the last of them. Raises `WorkError` where a number is not finite, unless told otherwise.
    """
    if not rows:
        return
    look = Look(tuple(point(layer, "resid_pre") for layer in layers)) if layers else None
    with torch.inference_mode():
        opening = opening_of(model, layout, rows, pad_id, look)

    @torch.inference_mode()
    def work(indices: list[int]) -> Next:
        passed = pass_chunk(model, layout, rows, indices, pad_id, opening, look, keep=False)
        logits, states = passed.logits.float().cpu(), passed.states.flatten(2)
        finite = torch.isfinite(logits).all(-1) & torch.isfinite(states).flatten(1).all(-1)
        if finite_only and not finite.all():
            raise NotFinite("what is computed", indices[int(torch.nonzero(~finite)[0])], weights_dtype(model))
        return Next(indices, logits, states)

    prompts = [row.prompt for row in rows]
    sizes = [len(prompt) for prompt in prompts]
    found = in_batches(sizes, work, model=model, batch_tokens=batch_tokens, even=True, like=prompts)
    yield from (done for _, done in found)


@dataclass(frozen=True)
class Given:
    """A prompt, the tokens that are taken to follow it, and what is done to the stream meanwhile."""

    prompt: tuple[int, ...]
    continuation: tuple[int, ...]
    edits: RowEdits = None


def continuation_losses(
    model: PreTrainedModel,
    layout: Layout,
    rows: Sequence[Given],
    *,
    pad_id: int = 0,
    batch_tokens: int = LOSS_TOKENS,
) -> Iterator[tuple[list[int], list[Float[Tensor, " token"]]]]:
    """Batches of (row indices, each row's loss of every continuation token in nats, float64 on the processor).

    Edits scoped to `prompt` or `generated` act as they do while decoding: the continuation's tokens count as generated.
    """

    def work(indices: list[int]) -> list[Tensor]:
        return _losses(model, layout, [rows[i] for i in indices], pad_id)

    lengths = [len(row.prompt) + len(row.continuation) for row in rows]
    yield from in_batches(lengths, work, model=model, batch_tokens=batch_tokens)


@in_turn
def _losses(model: PreTrainedModel, layout: Layout, batch: Sequence[Given], pad_id: int) -> list[Float[Tensor, " token"]]:
    """Each row's loss of every continuation token, all rows in one batch."""
    device = input_device(model)
    n_layers = len(layout.find_blocks(model))
    # Prompts padded on the left, continuations on the right: the prompt ends in the same column of every row.
    prompts, before = pad_left([row.prompt for row in batch], pad_id, device)
    flipped, behind = pad_left([row.continuation[::-1] for row in batch], pad_id, device)
    ids, mask = torch.cat((prompts, flipped.flip(1)), dim=1), torch.cat((before, behind.flip(1)), dim=1)
    width = flipped.shape[1]
    table = tabulate([row.edits for row in batch], layout, n_layers, d_model_of(model), device)
    with torch.inference_mode(), packed(model, layout), edited(model, layout, table, prompt_width=prompts.shape[1]):
        output = model(
            input_ids=ids, attention_mask=mask, position_ids=position_ids(mask), use_cache=False, logits_to_keep=width + 1
        )
    found = []
    for row, logits, targets in zip(batch, output.logits[:, -width - 1 : -1], ids[:, -width:], strict=True):
        n = len(row.continuation)
        found.append(torch.nn.functional.cross_entropy(logits[:n].double(), targets[:n], reduction="none").cpu())
    return found
