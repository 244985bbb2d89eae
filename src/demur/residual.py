"""Capture and edit of the residual stream: the only file in demur that registers a hook.

Edits act on the stream itself: an edit at `resid_mid` reaches both the MLP and the skip connection. Hooks live inside context
managers and are gone after an exception. Every edit that was asked for is counted; one that did not act raises `WorkError`.
`output_hidden_states` is never used: its last entry lies behind the final norm and edits are not visible in it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from demur.batching import BATCH_TOKENS, batch_of, in_batches
from demur.errors import InputError, NotFinite, WorkError
from demur.interventions import EditTable, point
from demur.layouts import Layout, Site, branch

Rows = Float[Tensor, "row seq d_model"]
Change = Callable[[Rows, Rows], Rows | None]
"""Gets the stream at a point, and the tensor through which it can be changed there: the stream itself, or at resid_mid what the
attention branch is about to add to it. Returns that tensor's replacement, or None to leave it."""


class _Stop(Exception):
    """Ends a forward pass behind the last point that is needed."""


@dataclass
class Columns:
    """Which columns of the current chunk lie behind the prompt, whatever the cache: kept here, not taken from the layers.

    transformers tells layers neither the column (`cache_position` is gone) nor where the prompt ends, and gives pads the same
    position id as the first real token, so demur counts for itself. `prompt_width` of None means: the first chunk of a
    sequence is its prompt.
    """

    prompt_width: int | None = None
    forwards: int = 0
    generated: Bool[Tensor, " seq"] | None = None
    _prompt: Tensor | None = field(default=None, repr=False)
    _width: int = 0

    def observe(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A forward pre-hook of the whole model."""
        ids = kwargs.get("input_ids", args[0] if args else None)
        given = ids if ids is not None else kwargs["inputs_embeds"]
        width, cache = given.shape[1], kwargs.get("past_key_values")
        start = 0 if cache is None else int(cache.get_seq_length())
        if start == 0 and (cache is not None or not self._continues(given)):
            self._prompt = given.detach().clone()
        self._width = width
        prompt_width = self.prompt_width
        if prompt_width is None:
            prompt_width = width if self._prompt is None else self._prompt.shape[1]
        self.generated = torch.arange(start, start + width, device=given.device) >= prompt_width
        self.forwards += 1

    def _continues(self, given: Tensor) -> bool:
        """Without a cache each step passes the whole sequence again, one token longer, behind the same prompt."""
        known = self._prompt
        return (
            known is not None
            and given.ndim == known.ndim
            and given.shape[0] == known.shape[0]
            and given.shape[1] == self._width + 1
            and torch.equal(given[:, : known.shape[1]], known)
        )


@contextmanager
def _hooked(model: nn.Module, layout: Layout, changes: dict[int, Change]) -> Iterator[None]:
    """Calls `changes[point]` at its point in every forward pass while the context lasts."""
    blocks = layout.find_blocks(model)
    inputs: dict[int, Tensor] = {}

    def before(layer: int, change: Change | None) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            stream = args[0] if args else kwargs["hidden_states"]
            changed = None if change is None else change(stream, stream)
            inputs[layer] = stream if changed is None else changed
            if changed is None:
                return None
            return ((changed, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": changed})

        return hook

    def within(layer: int, change: Change) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            contribution = output[0] if isinstance(output, tuple) else output
            changed = change(inputs.pop(layer) + contribution, contribution)
            return _like(output, changed)

        return hook

    def after(change: Change) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            stream = output[0] if isinstance(output, tuple) else output
            return _like(output, change(stream, stream))

        return hook

    with ExitStack() as stack:
        for layer, block in enumerate(blocks):
            pre, mid = changes.get(point(layer, "resid_pre")), changes.get(point(layer, "resid_mid"))
            if pre is not None or mid is not None:
                stack.callback(block.register_forward_pre_hook(before(layer, pre), with_kwargs=True).remove)
            if mid is not None:
                stack.callback(branch(block, layout.attention).register_forward_hook(within(layer, mid)).remove)
        last = changes.get(point(len(blocks) - 1, "resid_post"))
        if last is not None:
            stack.callback(blocks[-1].register_forward_hook(after(last)).remove)
        yield


def _like(output: Any, changed: Tensor | None) -> Any:
    """What a forward hook returns: None to leave the output, else the change in the output's own form."""
    if changed is None:
        return None
    return (changed, *output[1:]) if isinstance(output, tuple) else changed


@contextmanager
def edited(model: nn.Module, layout: Layout, table: EditTable, prompt_width: int | None = None) -> Iterator[Columns]:
    """Applies a table of edits to every forward pass inside the context; row i of the table is row i of the batch.

    A table for one row holds for every row of any batch. Raises `WorkError` on leaving if some edit acted in fewer forward
    passes than the model made.
    """
    columns, acted = Columns(prompt_width), dict.fromkeys(table, 0)

    def change(where: int) -> Change:
        def act(stream: Rows, onto: Rows) -> Rows:
            for edit in table[where]:
                rows = edit.rows
                if rows not in (1, stream.shape[0]):
                    raise WorkError(f"a table of edits for {rows} rows met a batch of {stream.shape[0]} rows")
                changed = edit.apply(stream, onto, columns.generated)
                stream = changed if onto is stream else stream + (changed - onto)
                onto = changed
            acted[where] += 1
            return onto

        return act

    with _hooked(model, layout, {where: change(where) for where in table}):
        watch = model.register_forward_pre_hook(columns.observe, with_kwargs=True)
        try:
            yield columns
        finally:
            watch.remove()
    silent = [where for where, times in acted.items() if times < columns.forwards]
    if silent:
        raise WorkError(
            f"the edit at point {silent[0]} of the stream acted in {acted[silent[0]]} of {columns.forwards} forward passes of "
            f"this {layout.family!r} model; its results would be those of an unedited model"
        )


@contextmanager
def observed(
    model: nn.Module, layout: Layout, points: Sequence[int], positions: Sequence[int], *, stop: bool = False
) -> Iterator[dict[int, Float[Tensor, "row position d_model"]]]:
    """Fills the dict, in each forward pass inside, with the stream at some points and columns, in float32 on the processor.

    Inside `edited` it sees the edited stream. With `stop`, a pass ends behind the last of the points, without logits.
    """
    taken: dict[int, Tensor] = {}
    columns = list(positions)

    def take(where: int) -> Change:
        def look(stream: Rows, onto: Rows) -> None:
            taken[where] = stream[:, columns].detach().float().cpu()
            if stop and len(taken) == len(set(points)):
                raise _Stop

        return look

    with _hooked(model, layout, {where: take(where) for where in points}), suppress(_Stop):
        yield taken


def stream_activations(
    model: nn.Module,
    layout: Layout,
    prompts: Sequence[Sequence[int]],
    *,
    layers: Sequence[int],
    site: Site = "resid_pre",
    positions: Sequence[int] = (-1,),
    pad_id: int = 0,
    batch_tokens: int = BATCH_TOKENS,
) -> Iterator[tuple[list[int], Float[Tensor, "row layer position d_model"]]]:
    """Batches of (prompt indices, activations at some positions) in float32 on the processor; longest prompts first.

    `positions` count from the end of the prompt: -1 is its last token. The pass stops behind the last layer asked for and no
    logits are computed, so memory does not grow with the number of prompts. Raises `InputError` for a position that a prompt
    does not have, and `WorkError` naming layer and prompt where an activation is not finite.
    """
    layout.check_sites((site,))
    n_layers = len(layout.find_blocks(model))
    for layer in layers:
        if not 0 <= layer < n_layers:
            raise InputError(f"layer {layer} is out of range: this model has layers 0 to {n_layers - 1}")
    shortest = min(map(len, prompts), default=0)
    for position in positions:
        if not -shortest <= position < 0:
            raise InputError(
                f"position {position} is not in every prompt: positions count back from the prompt's end, -1 to -{shortest}"
            )
    points = [point(layer, site) for layer in layers]
    device = next(model.parameters()).device

    def work(indices: list[int]) -> Tensor:
        batch = batch_of(prompts, indices, pad_id=pad_id, device=device)
        with torch.inference_mode(), observed(model, layout, points, positions, stop=True) as taken:
            model(**batch.inputs(), use_cache=False)
        activations = torch.stack([taken[where] for where in points], dim=1)
        if not torch.isfinite(activations).all():
            row, layer = (int(i) for i in torch.nonzero(~torch.isfinite(activations).all(-1))[0][:2])
            raise NotFinite("the activations", indices[row], next(model.parameters()).dtype, layers[layer])
        return activations

    yield from in_batches([len(prompt) for prompt in prompts], work, model=model, batch_tokens=batch_tokens)


@dataclass
class Branches:
    """One block's input, what its two branches are declared to add, and its output: float64, (tokens, d_model)."""

    before: Tensor
    attention: Tensor
    mlp: Tensor
    after: Tensor


@contextmanager
def recorded_branches(model: nn.Module, layout: Layout) -> Iterator[list[Branches]]:
    """Fills the list with every block's branches in the forward passes inside the context."""
    seen: list[Branches] = []
    parts: dict[str, Tensor] = {}

    def flat(value: Any) -> Tensor:
        found: Tensor = value[0] if isinstance(value, tuple) else value
        return found.detach().cpu().double().reshape(-1, found.shape[-1])

    def keep(what: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            parts[what] = flat(output)

        return hook

    def close(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        before = flat(args[0] if args else kwargs["hidden_states"])
        seen.append(Branches(before, parts.pop("attention"), parts.pop("mlp"), flat(output)))

    with ExitStack() as stack:
        for block in layout.find_blocks(model):
            stack.callback(branch(block, layout.attention).register_forward_hook(keep("attention")).remove)
            stack.callback(branch(block, layout.mlp).register_forward_hook(keep("mlp")).remove)
            stack.callback(block.register_forward_hook(close, with_kwargs=True).remove)
        yield seen
