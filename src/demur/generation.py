"""Greedy decoding over token ids; knows no text.

Every row may carry its own intervention, and a row's tokens are what they would be alone: exactly in float32, up to ties in
lower precision. A row ends at one of the stop tokens, which is kept as its last token, or at `max_new_tokens`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from demur.batching import BATCH_TOKENS, in_batches, pad_left, position_ids
from demur.errors import InputError, NotFinite
from demur.interventions import RowEdits, tabulate
from demur.layouts import Layout, d_model_of
from demur.residual import edited


@dataclass(frozen=True)
class Decoding:
    """The settings of greedy decoding. `stop_ids` may be empty: the published loop never stops."""

    max_new_tokens: int = 16
    stop_ids: tuple[int, ...] = ()
    pad_id: int = 0
    use_cache: bool = True

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise InputError(f"max_new_tokens must be at least 1, not {self.max_new_tokens}")


@dataclass(frozen=True)
class Row:
    """One prompt with what is done to the stream while it is continued."""

    prompt: tuple[int, ...]
    edits: RowEdits = None


@torch.inference_mode()
def decode_batch(model: PreTrainedModel, layout: Layout, rows: Sequence[Row], decoding: Decoding) -> list[list[int]]:
    """New tokens of each row, all rows in one batch. Raises `WorkError` where the logits of a row are not finite."""
    device = next(model.parameters()).device
    ids, mask = pad_left([row.prompt for row in rows], decoding.pad_id, device)
    n_layers = len(layout.find_blocks(model))
    table = tabulate([row.edits for row in rows], layout, n_layers, d_model_of(model), device)
    cache = DynamicCache(config=model.config) if decoding.use_cache else None
    stop = torch.tensor(decoding.stop_ids, device=device, dtype=torch.long)
    done = torch.zeros(len(rows), dtype=torch.bool, device=device)
    new: list[Int[Tensor, " row"]] = []
    with edited(model, layout, table, prompt_width=ids.shape[1]):
        chunk = ids
        for _ in range(decoding.max_new_tokens):
            positions = position_ids(mask)[:, -chunk.shape[1] :]
            output = model(
                input_ids=chunk,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=decoding.use_cache,
                logits_to_keep=1,
            )
            logits = output.logits[:, -1]
            if not torch.isfinite(logits).all():
                row = int(torch.nonzero(~torch.isfinite(logits).all(-1))[0])
                raise NotFinite("the logits", row, logits.dtype)
            token = logits.argmax(-1).masked_fill(done, decoding.pad_id)
            new.append(token)
            done = done | torch.isin(token, stop)
            if bool(done.all()):
                break
            mask = torch.cat((mask, torch.ones_like(mask[:, :1])), dim=1)
            chunk = token[:, None] if decoding.use_cache else torch.cat((chunk, token[:, None]), dim=1)
    return [_until_stop(row, decoding.stop_ids) for row in torch.stack(new, dim=1).tolist()]


def _until_stop(tokens: list[int], stop_ids: Sequence[int]) -> list[int]:
    ends = [index for index, token in enumerate(tokens) if token in stop_ids]
    return tokens[: ends[0] + 1] if ends else tokens


def decode(
    model: PreTrainedModel,
    layout: Layout,
    rows: Sequence[Row],
    decoding: Decoding,
    *,
    batch_tokens: int = BATCH_TOKENS,
    batch_rows: int | None = None,
) -> Iterator[dict[int, list[int]]]:
    """All rows, batch after batch: row index -> new tokens. Rows of like length share a batch, longest first.

    Running out of memory halves the batch and goes on; raises `WorkError` if one row alone does not fit.
    """
    lengths = [len(row.prompt) + decoding.max_new_tokens for row in rows]

    def work(indices: list[int]) -> list[list[int]]:
        try:
            return decode_batch(model, layout, [rows[i] for i in indices], decoding)
        except NotFinite as error:
            raise error.of_row(indices[error.row]) from error

    for indices, tokens in in_batches(lengths, work, model=model, batch_tokens=batch_tokens, batch_rows=batch_rows):
        yield dict(zip(indices, tokens, strict=True))
