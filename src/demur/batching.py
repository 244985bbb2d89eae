"""Rows of token ids as left-padded batches: longest first, so that memory that does not suffice shows at once.

Left padding puts every prompt's last token in the last column. Positions are counted over real tokens only, so a padded row
computes what it would compute alone, in families with rotary and with learned positions alike.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

BATCH_TOKENS = 4096
"""Default size of a batch, padding included. On two cores larger batches gain nothing; on a large GPU give more."""


@dataclass(frozen=True)
class Batch:
    """Some of the rows: `indices` says which."""

    indices: list[int]
    ids: Int[Tensor, "row seq"]
    mask: Int[Tensor, "row seq"]

    @property
    def width(self) -> int:
        """Columns, padding included."""
        return self.ids.shape[1]

    def inputs(self) -> dict[str, Tensor]:
        """Keyword arguments of a transformers forward pass."""
        return {"input_ids": self.ids, "attention_mask": self.mask, "position_ids": position_ids(self.mask)}


def position_ids(mask: Int[Tensor, "row seq"]) -> Int[Tensor, "row seq"]:
    """Positions over real tokens: the mask alone is wrong for families with learned positions (GPT-2)."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


def pad_left(rows: Sequence[Sequence[int]], pad_id: int, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, both (row, seq)."""
    width = max(map(len, rows))
    ids = torch.tensor([[pad_id] * (width - len(row)) + list(row) for row in rows], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
    return ids, mask


def group(lengths: Sequence[int], batch_tokens: int, batch_rows: int | None = None) -> list[list[int]]:
    """Indices of rows, longest first and otherwise in order, cut so that rows x longest stays within `batch_tokens`.

    A row longer than the budget stands alone.
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        current = groups[-1] if groups else []
        fits = current and (len(current) + 1) * lengths[current[0]] <= batch_tokens
        if fits and (batch_rows is None or len(current) < batch_rows):
            current.append(index)
        else:
            groups.append([index])
    return groups


def batches(rows: Sequence[Sequence[int]], *, batch_tokens: int, pad_id: int, device: torch.device | str) -> Iterator[Batch]:
    """All rows as batches."""
    for indices in group([len(row) for row in rows], batch_tokens):
        yield Batch(indices, *pad_left([rows[i] for i in indices], pad_id, device))
