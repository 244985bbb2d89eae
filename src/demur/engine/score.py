"""The logits of the next token, and the loss of given continuations, for many rows that differ in prompt and edits.

Logits are computed only at the token positions that are read. The numbers of a row are the same as for the row alone, up to
rounding.
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from demur.core.errors import NotFinite
from demur.engine.batching import in_batches, pad_left, position_ids
from demur.engine.engine_protocol import LOSS_TOKENS, Continuation, NextTokens, Row
from demur.engine.hooks import edited
from demur.engine.model_state import one_thread_at_a_time
from demur.engine.prefill import ReadSpec, prefill_chunk, run_shared_prefix
from demur.interventions.edit_table import tabulate
from demur.models.device_placement import input_device, weights_dtype
from demur.models.layouts import Layout, d_model_of, point
from demur.models.memory_budget import fitting
from demur.models.prepacked_weights import prepacked


def next_tokens(
    model: PreTrainedModel,
    layout: Layout,
    rows: Sequence[Row],
    *,
    layers: Sequence[int] = (),
    pad_id: int = 0,
    batch_tokens: int | None = None,
    finite_only: bool = True,
) -> Iterator[NextTokens]:
    """The logits after each row's last token, or its edited stream there, batch after batch, longest rows first.

    Args:
        model: the model.
        layout: the layout of its family.
        rows: prompts with their edits.
        layers: the layers whose `resid_pre` is wanted in place of logits; the forward pass ends after the last of them.
        pad_id: the token used as padding.
        batch_tokens: the most tokens in a batch.
        finite_only: whether to raise an error for numbers that are not finite.

    Returns:
        One `NextTokens` a batch.

    Raises:
        NotFinite: if `finite_only`, with the index of a row whose numbers are not finite.
    """
    if not rows:
        return
    spec = ReadSpec(tuple(point(layer, "resid_pre") for layer in layers)) if layers else None
    with torch.inference_mode():
        prefix = run_shared_prefix(model, layout, rows, pad_id, spec)

    @torch.inference_mode()
    def work(indices: list[int]) -> NextTokens:
        chunk = prefill_chunk(model, layout, rows, indices, pad_id, prefix, spec, keep=False)
        logits, states = chunk.logits.float().cpu(), chunk.states.flatten(2)
        finite = torch.isfinite(logits).all(-1) & torch.isfinite(states).flatten(1).all(-1)
        if finite_only and not finite.all():
            raise NotFinite(
                "the activations" if layers else "the logits", indices[int(torch.nonzero(~finite)[0])], weights_dtype(model)
            )
        return NextTokens(indices, logits, states)

    prompts = [row.prompt for row in rows]
    sizes = [len(prompt) for prompt in prompts]
    found = in_batches(sizes, work, model=model, batch_tokens=batch_tokens, even=True, like=prompts)
    yield from (done for _, done in found)


def continuation_losses(
    model: PreTrainedModel,
    layout: Layout,
    rows: Sequence[Continuation],
    *,
    pad_id: int = 0,
    batch_tokens: int = LOSS_TOKENS,
) -> Iterator[tuple[list[int], list[Float[Tensor, " token"]]]]:
    """The loss of every token of given continuations, batch after batch.

    Edits at positions `prompt` or `generated` act as in decoding: the tokens of the continuation count as generated.

    Args:
        model: the model.
        layout: the layout of its family.
        rows: prompts, continuations and edits.
        pad_id: the token used as padding.
        batch_tokens: the most tokens in a batch; fewer where memory is short.

    Returns:
        For each batch, the indices of its rows and each row's loss of every continuation token in nats, float64 on the CPU.
    """

    def work(indices: list[int]) -> list[Tensor]:
        return _losses(model, layout, [rows[i] for i in indices], pad_id)

    lengths = [len(row.prompt) + len(row.continuation) for row in rows]
    # Logits after every token, and those of a row again in float64.
    each = 2 * model.config.get_text_config().vocab_size * weights_dtype(model).itemsize
    fits = fitting(each, str(input_device(model)), batch_tokens)
    yield from in_batches(lengths, work, model=model, batch_tokens=fits)


@one_thread_at_a_time
def _losses(model: PreTrainedModel, layout: Layout, batch: Sequence[Continuation], pad_id: int) -> list[Float[Tensor, " token"]]:
    """Each row's loss of every continuation token, all rows in one batch."""
    device = input_device(model)
    n_layers = len(layout.find_blocks(model))
    # Prompts are padded on the left and continuations on the right, so that all prompts end at the same position.
    prompts, before = pad_left([row.prompt for row in batch], pad_id, device)
    flipped, after = pad_left([row.continuation[::-1] for row in batch], pad_id, device)
    ids, mask = torch.cat((prompts, flipped.flip(1)), dim=1), torch.cat((before, after.flip(1)), dim=1)
    width = flipped.shape[1]
    table = tabulate([row.edits for row in batch], layout, n_layers, d_model_of(model), device)
    with torch.inference_mode(), prepacked(model, layout), edited(model, layout, table, prompt_width=prompts.shape[1]):
        output = model(
            input_ids=ids, attention_mask=mask, position_ids=position_ids(mask), use_cache=False, logits_to_keep=width + 1
        )
    found = []
    for row, logits, targets in zip(batch, output.logits[:, -width - 1 : -1], ids[:, -width:], strict=True):
        n = len(row.continuation)
        found.append(torch.nn.functional.cross_entropy(logits[:n].double(), targets[:n], reduction="none").cpu())
    return found
