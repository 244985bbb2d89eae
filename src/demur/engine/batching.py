"""Rows of token ids as left-padded batches: longest first, so that memory that does not suffice shows at once.

Left padding puts every prompt's last token in the last column. Positions are counted over real tokens only, so a padded row
computes what it would compute alone, in families with rotary and with learned positions alike.
"""

import gc
import re
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from jaxtyping import Int
from torch import Tensor, nn

from demur.core.errors import InputError, WorkError
from demur.models.device_placement import input_device, weights_dtype
from demur.models.memory_budget import PASS_TOKENS, kind_of

FULL_TOKENS = 512
"""Below so many tokens a pass is slow for its size: it reads all weights for few."""
WASTE = 0.05
"""Part of a pass of many tokens that may be padding."""


def pass_tokens(model: nn.Module) -> int:
    """Most tokens of a pass over prompts on the device where this model takes them."""
    return PASS_TOKENS[kind_of(input_device(model))]


def position_ids(mask: Int[Tensor, "row seq"]) -> Int[Tensor, "row seq"]:
    """Positions over real tokens: the mask alone is wrong for families with learned positions (GPT-2)."""
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
    """Indices of rows, longest first and otherwise in order, cut so that rows x longest stays within `batch_tokens`.

    A row longer than the budget stands alone. `even` also cuts a batch that is large enough where more than `WASTE` of it would
    be padding. Rows of one length that are equal in `like` lie together.
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
    """`work` on the indices of each batch of rows of these lengths, longest first; see `group`. A batch is a pass unless told.

    Running out of memory halves a batch and goes on. Raises `InputError` for a row longer than the model has positions, and
    `WorkError` where one row alone does not fit into memory, saying what would.
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
        # Only now, outside of the handler: the exception held the frames, and they the tensors of the failed attempt.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(indices) == 1:
            raise WorkError(_does_not_fit(lengths, indices[0], model, problem))
        half = len(indices) // 2
        pending[:0] = [indices[:half], indices[half:]]


def _attempt(work: Callable[[list[int]], Result], indices: list[int]) -> tuple[Result | None, str | None]:
    try:
        return work(indices), None
    except RuntimeError as error:
        # On the processor torch raises a plain RuntimeError.
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
    asked = f", where {wanted[1]} more were asked for," if wanted else ""
    lower = "" if weights_dtype(model).itemsize <= 2 else "weights in bfloat16 (half the memory), "
    shorter = [length for length in lengths if length < lengths[row]]
    rest = f"; the other rows take at most {max(shorter)}" if shorter else ""
    return (
        f"row {row} of {lengths[row]} tokens does not fit into memory on {input_device(model)} beside the weights{asked} even "
        f"alone; what would: {lower}a device with more memory, or a row of fewer than {lengths[row]} tokens{rest}"
    )
