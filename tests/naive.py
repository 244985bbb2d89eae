"""The loop of "Base LLMs refuse too" a second time, naively: what its code does, in plain torch and transformers.

No cache, four rows at a time, left padding with a token that no text makes, logits at every position and the last one's argmax,
sixteen tokens whatever they are. Edits are made in place, by ordinary hooks on three places of a block. It shares no code with
the package, so it can disagree with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Change = Callable[[Tensor], None]
"""Changes the stream, of shape (row, position, width), in place."""

BLOCKS = {"gpt_neox": "gpt_neox.layers", "gpt2": "transformer.h"}
# The norm that reads the stream behind attention: what it is given is also what the skip connection keeps.
SECOND_NORM = {"gemma2": "pre_feedforward_layernorm", "gpt2": "ln_2", "gpt_neox": None}


def leave(stream: Tensor) -> None:
    pass


def add_in_place(vector: Tensor) -> Change:
    def change(stream: Tensor) -> None:
        stream += vector

    return change


def ablate_in_place(unit: Tensor) -> Change:
    def change(stream: Tensor) -> None:
        stream -= (stream @ unit)[..., None] * unit

    return change


def blocks_of(model: PreTrainedModel) -> nn.ModuleList:
    found: nn.ModuleList = model.get_submodule(BLOCKS.get(model.config.model_type, "model.layers"))
    return found


def set_in_place(unit: Tensor, mean: Tensor) -> Change:
    def change(stream: Tensor) -> None:
        stream -= (stream @ unit)[..., None] * unit
        stream += (mean @ unit) * unit

    return change


SITES = ("before", "middle", "behind")

Changes = Mapping[tuple[int, str], Change]
"""(block, one of SITES) -> the change there."""


def everywhere(layers: Sequence[int], change: Change) -> Changes:
    return {(layer, site): change for layer in layers for site in SITES}


@contextmanager
def hooked(model: PreTrainedModel, changes: Changes) -> Iterator[None]:
    """Changes before, in the middle of and behind blocks; blocks with parallel branches have no middle."""

    # Hooks return None: whatever else they returned would take the place of all arguments, masks among them.
    def before(change: Change) -> Callable[..., None]:
        return lambda _, args: change(args[0])

    def behind(change: Change) -> Callable[..., None]:
        return lambda _, args, output: change(output[0] if isinstance(output, tuple) else output)

    handles = []
    for (layer, site), change in changes.items():
        block = blocks_of(model)[layer]
        middle = SECOND_NORM.get(model.config.model_type, "post_attention_layernorm")
        if site == "before":
            handles.append(block.register_forward_pre_hook(before(change)))
        elif site == "behind":
            handles.append(block.register_forward_hook(behind(change)))
        elif middle is not None:
            handles.append(getattr(block, middle).register_forward_pre_hook(before(change)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def hooked_as_by_arditi(model: PreTrainedModel, change: Change) -> Iterator[None]:
    """`change` before every block and on what its attention and MLP modules put out, as andyrdt/refusal_direction ablates."""

    def before(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        change(args[0])

    def behind(_: nn.Module, args: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]) -> None:
        change(output[0] if isinstance(output, tuple) else output)

    handles = []
    for block in blocks_of(model):
        handles.append(block.register_forward_pre_hook(before))
        handles += [module.register_forward_hook(behind) for module in map(block.get_submodule, ("self_attn", "mlp"))]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def left_padded(tokenizer: PreTrainedTokenizerBase, template: str, instructions: Sequence[str], pad: int) -> Tensor:
    rows = [tokenizer(template.format(instruction=instruction))["input_ids"] for instruction in instructions]
    assert all(pad not in row for row in rows)
    width = max(map(len, rows))
    return torch.tensor([[pad] * (width - len(row)) + row for row in rows])


def logits_of(model: PreTrainedModel, ids: Tensor, pad: int) -> Tensor:
    # Leading pads only: a pad that the model writes itself is a token like any other.
    mask = ((ids != pad).cumsum(-1) > 0).long()
    extra = {}
    if model.config.model_type == "gpt2":
        # Learned positions count pads unless told otherwise; rotary ones are relative.
        extra = {"position_ids": (mask.cumsum(-1) - 1).clamp(min=0)}
    logits: Tensor = model(input_ids=ids, attention_mask=mask, use_cache=False, **extra).logits
    return logits


@torch.no_grad()
def means(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, template: str, instructions: Sequence[str], pad: int
) -> dict[tuple[int, str], Tensor]:
    """The mean of the stream at each place at the last prompt token, all instructions in one batch."""
    kept: dict[tuple[int, str], Tensor] = {}

    def keep(place: tuple[int, str]) -> Change:
        return lambda stream: kept.update({place: stream[:, -1].mean(dim=0)})

    places = [(layer, site) for layer in range(len(blocks_of(model))) for site in SITES]
    with hooked(model, {place: keep(place) for place in places}):
        logits_of(model, left_padded(tokenizer, template, instructions, pad), pad)
    return kept


@torch.no_grad()
def direction(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    harmful: Sequence[str],
    harmless: Sequence[str],
    layer: int,
    pad: int,
) -> Tensor:
    """Difference of the means of the stream before `layer` at the last prompt token, each set in one batch; unit norm."""
    means: list[Tensor] = []
    for instructions in (harmful, harmless):
        kept: list[Tensor] = []

        def keep(_: nn.Module, args: tuple[Tensor, ...], kept: list[Tensor] = kept) -> None:
            kept.append(args[0][:, -1].clone())

        handle = blocks_of(model)[layer].register_forward_pre_hook(keep)
        logits_of(model, left_padded(tokenizer, template, instructions, pad), pad)
        handle.remove()
        means.append(kept[0].mean(dim=0))
    difference = means[0] - means[1]
    unit: Tensor = difference / difference.norm()
    return unit


@torch.no_grad()
def completions(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    instructions: Sequence[str],
    pad: int,
    layers: Sequence[int] = (),
    change: Change = leave,
    new_tokens: int = 16,
    changes: Changes | None = None,
) -> list[list[int]]:
    """Greedy tokens of each instruction: every token by a pass over everything so far, four instructions a batch."""
    found: list[list[int]] = []
    for start in range(0, len(instructions), 4):
        ids = left_padded(tokenizer, template, instructions[start : start + 4], pad)
        prompt_width = ids.shape[1]
        for _ in range(new_tokens):
            with hooked(model, everywhere(layers, change) if changes is None else changes):
                following = logits_of(model, ids, pad)[:, -1, :].argmax(dim=-1)
            ids = torch.cat((ids, following[:, None]), dim=1)
        found += ids[:, prompt_width:].tolist()
    return found
