"""Rows of token ids as left-padded batches. The longest rows run first, so a lack of memory shows at once.

Left padding puts the last token of every prompt at the last position. Position ids count real tokens only, so a padded row
gives the same result as the row alone, both with rotary and with learned positions.
"""

import re
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from jaxtyping import Int
from torch import Tensor, nn

from demur.core.errors import InputError, WorkError
from demur.models.device_placement import input_device, weights_dtype
from demur.models.freed_memory import free_memory
from demur.models.memory_budget import PASS_TOKENS, kind_of

FULL_TOKENS = 512
"""A forward pass over fewer tokens is inefficient, because it reads all weights for few tokens."""
WASTE = 0.05
"""The largest share of a large forward pass that may be padding."""


def pass_tokens(model: nn.Module) -> int:
    """The most tokens in a forward pass over prompts on this model's device."""
    return PASS_TOKENS[kind_of(input_device(model))]


def position_ids(mask: Int[Tensor, "row seq"]) -> Int[Tensor, "row seq"]:
    """Position ids that count real tokens; families with learned positions (GPT-2) need them in addition to the mask."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


def pad_left(rows: Sequence[Sequence[int]], pad_id: int, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, both (row, seq)."""
    width = max(map(len, rows))
    ids = torch.tensor([[pad_id] * (width - len(row)) + list(row) for row in rows], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
    return ids, mask


def group(
    lengths: Sequence[int],
    batch_tokens: int,
    batch_rows: int | None = None,
    *,
    even: bool = False,
    like: Sequence[Hashable] | None = None,
) -> list[list[int]]:
    """Cut rows into batches, longest first and otherwise in order.

    Args:
        lengths: tokens of each row.
        batch_tokens: the most tokens in a batch, padding included. A longer row is a batch of its own.
        batch_rows: the most rows in a batch.
        even: whether a batch of `FULL_TOKENS` or more also ends before more than `WASTE` of it would be padding.
        like: one value for each row. Among rows of the same length, those with equal values are put next to each other.

    Returns:
        The indices of each batch's rows.
    """
    first: dict[Hashable, int] = {}
    together = range(len(lengths)) if like is None else [first.setdefault(one, index) for index, one in enumerate(like)]
    groups: list[list[int]] = []
    tokens = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], together[i])):
        current = groups[-1] if groups else []
        longest = lengths[current[0]] if current else 0
        padded = (len(current) + 1) * longest
        wasted = padded - tokens - lengths[index]
        full = even and wasted > WASTE * padded and len(current) * longest >= FULL_TOKENS
        if current and padded <= batch_tokens and not full and (batch_rows is None or len(current) < batch_rows):
            current.append(index)
            tokens += lengths[index]
        else:
            groups.append([index])
            tokens = lengths[index]
    return groups


Result = TypeVar("Result")


def in_batches(
    lengths: Sequence[int],
    work: Callable[[list[int]], Result],
    *,
    model: nn.Module,
    batch_tokens: int | None = None,
    batch_rows: int | None = None,
    even: bool = False,
    like: Sequence[Hashable] | None = None,
) -> Iterator[tuple[list[int], Result]]:
    """Do `work` batch after batch, longest rows first. A batch that does not fit into memory is halved.

    Args:
        lengths: tokens of each row, new ones included.
        work: gets the indices of a batch's rows.
        model: the model that runs them.
        batch_tokens: the most tokens in a batch; `pass_tokens` by default.
        batch_rows: the most rows in a batch.
        even: see `group`.
        like: see `group`.

    Returns:
        For each batch, its indices and what `work` gave.

    Raises:
        InputError: for a row with more tokens than the model has positions.
        WorkError: if one row alone does not fit into memory. The message says what to change.
    """
    _check_lengths(lengths, model)
    budget = pass_tokens(model) if batch_tokens is None else batch_tokens
    pending = group(lengths, budget, batch_rows, even=even, like=like)
    while pending:
        indices = pending.pop(0)
        result, problem = _attempt(work, indices)
        if problem is None:
            yield indices, result  # type: ignore[misc]
            continue
        # Not in the handler: there the exception keeps frames alive, and the frames keep the tensors of the failed attempt.
        free_memory()
        if len(indices) == 1:
            raise WorkError(_does_not_fit(lengths, indices[0], model, problem))
        half = len(indices) // 2
        pending[:0] = [indices[:half], indices[half:]]


def _attempt(work: Callable[[list[int]], Result], indices: list[int]) -> tuple[Result | None, str | None]:
    try:
        return work(indices), None
    except RuntimeError as error:
        # On the CPU torch raises a plain RuntimeError.
        if isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error):
            return None, str(error)
        raise


def _check_lengths(lengths: Sequence[int], model: nn.Module) -> None:
    config: Any = getattr(model, "config", None)
    positions = None if config is None else getattr(config.get_text_config(), "max_position_embeddings", None)
    longest = max(range(len(lengths)), key=lengths.__getitem__, default=None)
    if positions is not None and longest is not None and lengths[longest] > positions:
        raise InputError(
            f"row {longest} takes {lengths[longest]} tokens, new ones included, but the model has {positions} positions; use "
            "shorter instructions or fewer new tokens"
        )


def _does_not_fit(lengths: Sequence[int], row: int, model: nn.Module, problem: str) -> str:
    wanted = re.search(r"(?:tried to allocate|you tried to allocate) ([\d.]+ ?\w+)", problem, flags=re.IGNORECASE)
    asked = f" ({wanted[1]} more were needed)" if wanted else ""
    lower = "" if weights_dtype(model).itemsize <= 2 else "weights in bfloat16 (half the memory), "
    shorter = [length for length in lengths if length < lengths[row]]
    rest = f"; the next shorter row has {max(shorter)}" if shorter else ""
    return (
        f"row {row} of {lengths[row]} tokens does not fit into memory on {input_device(model)} next to the weights, even as a "
        f"batch of one{asked}; use {lower}a device with more memory, or a row of fewer than {lengths[row]} tokens{rest}"
    )
