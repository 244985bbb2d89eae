"""Reads and edits the residual stream while a model runs.

Only this file, `branch_recording.py`, `lockstep/block_skipping.py` and, for vLLM, `vllm/stream_access.py` register hooks.

Edits act on the stream itself: an edit at `resid_mid` reaches both the MLP and the skip connection. Hooks exist only inside
context managers, which also remove them after an exception. Every edit is counted; an edit that did not act raises `WorkError`.
`output_hidden_states` of transformers is never used, because it does not show all edits and its last entry comes after the final
norm.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from demur.core.errors import InputError, WorkError
from demur.engine.model_state import state_of
from demur.engine.prompt_boundary import PromptBoundary
from demur.engine.row_sharing import RowSharing
from demur.interventions.edit_table import EditTable
from demur.interventions.stream_edit import StreamEdit
from demur.models.layouts import Layout, Point, branch, point

Rows = Float[Tensor, "row seq d_model"]
Change = Callable[[Rows, Rows], Rows | None]
"""A function of two tensors: the stream at a point, and the tensor to replace there. The second is the stream again, or at
`resid_mid` the output of the attention branch. The function returns the replacement, or None for no change."""
Hook = Callable[..., Any]


class Stop(Exception):
    """Ends a forward pass after the last point that is needed."""


@contextmanager
def hooked(model: nn.Module, layout: Layout, changes: Mapping[Point, Change]) -> Iterator[None]:
    """Inside the context, every forward pass calls `changes[point]` at each point.

    `edited` and `observed` are made of this. Use it alone only where a change needs more than a table of edits can say.
    """
    refuse_compiled(model)
    blocks = layout.find_blocks(model)
    inputs: dict[int, Tensor] = {}
    open_contexts = state_of(model).block_inputs
    with ExitStack() as stack:
        # Contexts may be nested. If an inner one changes a block's input that an outer one has kept, it updates that copy too.
        open_contexts[id(inputs)] = inputs
        stack.callback(open_contexts.pop, id(inputs))
        for block in layout.find_left_out(model):
            stack.callback(block.register_forward_pre_hook(_refuse_images(layout)).remove)
        for layer, block in enumerate(blocks):
            pre, mid = changes.get(point(layer, "resid_pre")), changes.get(point(layer, "resid_mid"))
            if pre is not None or mid is not None:
                before = _before_block(layer, pre, inputs if mid is not None else None, open_contexts)
                stack.callback(block.register_forward_pre_hook(before, with_kwargs=True).remove)
            if mid is not None:
                within = after_attention(layout, layer, mid, inputs)
                stack.callback(branch(block, layout.attention).register_forward_hook(within).remove)
        last = changes.get(point(len(blocks) - 1, "resid_post"))
        if last is not None:
            stack.callback(blocks[-1].register_forward_hook(_after_block(last)).remove)
        yield


def _before_block(
    layer: int, change: Change | None, inputs: dict[int, Tensor] | None, open_contexts: Mapping[int, dict[int, Tensor]]
) -> Hook:
    """A hook at a block's input. It stores the input in `inputs`, if given, for the hook after attention."""

    # Any: a hook gets whatever arguments the module is called with.
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        stream = args[0] if args else kwargs["hidden_states"]
        changed = None if change is None else change(stream, stream)
        if inputs is not None:
            inputs[layer] = stream if changed is None else changed
        if changed is None:
            return None
        for other in open_contexts.values():
            if layer in other:
                other[layer] = changed
        return ((changed, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": changed})

    return hook


def after_attention(layout: Layout, layer: int, change: Change, inputs: dict[int, Tensor]) -> Hook:
    """A hook on the output of the attention branch, before it is added to the stream."""

    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        # In a model that is spread over several devices, a block's input may still be on the previous device.
        found = first(output)
        stream = inputs.pop(layer).to(found.device)
        if found.shape != stream.shape:
            raise misfit(layout, layer, layout.attention, found, stream)
        if layout.multiplier == 1:
            return like_output(output, change(stream + found, found))
        # Only the difference is divided, so that rows without an edit keep every bit.
        added = found.to(torch.promote_types(found.dtype, torch.float32)) * layout.multiplier
        changed = change(stream + found * layout.multiplier, added)
        return like_output(output, None if changed is None else (found + (changed - added) / layout.multiplier).to(found.dtype))

    return hook


def _after_block(change: Change) -> Hook:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        stream = first(output)
        return like_output(output, change(stream, stream))

    return hook


def _refuse_images(layout: Layout) -> Hook:
    def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
        raise InputError(
            f"an image reached a block of this {layout.family!r} model that does not run for text; demur edits and reads such a "
            "model only for text, so leave the image out"
        )

    return hook


def misfit(layout: Layout, layer: int, path: str, found: Tensor | None, stream: Tensor) -> WorkError:
    """The error for a module that did not run, or whose output does not have the stream's shape."""
    what = "did not run" if found is None else f"gives {tuple(found.shape)}, the stream is {tuple(stream.shape)}"
    return WorkError(
        f"in layer {layer} of this {layout.family!r} model the module at {path!r} {what}; the layout does not describe it"
    )


def refuse_compiled(model: nn.Module) -> None:
    """Raises `InputError` if any part of the model was compiled: a compiled graph does not see hooks that are added later."""
    for name, module in model.named_modules():
        in_place = getattr(module, "_compiled_call_impl", None) is not None
        if in_place or hasattr(module, "_orig_mod") or hasattr(module.forward, "_torchdynamo_orig_callable"):
            where = f"{name!r} of this model" if name else "this model"
            raise InputError(f"{where} is compiled, and a compiled graph ignores edits; use the model before torch.compile")


def first(output: Any) -> Tensor:
    """The hidden states in a module's output: the output itself, or the first of several."""
    found: Tensor = output[0] if isinstance(output, tuple) else output
    return found


def like_output(output: Any, changed: Tensor | None) -> Any:
    """The return value of a forward hook: None for no change, else the changed tensor in the form of the output."""
    if changed is None:
        return None
    return (changed, *output[1:]) if isinstance(output, tuple) else changed


@contextmanager
def split_rows(model: nn.Module, layout: Layout, sharing: RowSharing) -> Iterator[None]:
    """Inside, call the model with the rows of the first span. At the first block of each later span, rows are copied.

    Enter it before `edited` and `observed`, so that they see the rows of each block. Edits of outer contexts see them too.
    """
    called = len(sharing.running[0])

    @cache
    def places(span: int, earlier: int, device: torch.device) -> Tensor:
        return torch.tensor(sharing.places_before(span, earlier), device=device)

    def for_rows(value: Any, span: int) -> Any:
        """Masks and rotary angles for the rows of this span. The model made them for the rows that it was called with."""
        if isinstance(value, tuple):
            return tuple(for_rows(one, span) for one in value)
        # A tensor of one row is broadcast to all rows.
        each = isinstance(value, Tensor) and value.ndim > 1 and value.shape[0] == called > 1
        return value[places(span, 0, value.device)] if each else value

    def hook(layer: int) -> Hook:
        span = sharing.span(layer)

        # Any: a hook gets whatever arguments the module is called with.
        def pick(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            stream: Tensor = args[0] if args else kwargs["hidden_states"]
            others = {name: for_rows(value, span) for name, value in kwargs.items() if name != "hidden_states"}
            if layer == sharing.starts[span]:
                stream = stream[places(span, span - 1, stream.device)]
            if args:
                return (stream, *for_rows(args[1:], span)), others
            return args, {"hidden_states": stream, **others}

        return pick

    with ExitStack() as stack:
        for layer, block in enumerate(layout.find_blocks(model)):
            if sharing.span(layer) > 0:
                stack.callback(block.register_forward_pre_hook(hook(layer), with_kwargs=True, prepend=True).remove)
        yield


@contextmanager
def edited(
    model: nn.Module, layout: Layout, table: EditTable, prompt_width: int | None = None, *, stops: bool = False
) -> Iterator[PromptBoundary]:
    """Apply a table of edits in every forward pass inside the context; row i of the table is row i of the batch.

    Args:
        model: the model.
        layout: the layout of its family.
        table: the edits. A table for one row applies to every row of any batch.
        prompt_width: token positions of the prompt, padding included; None if the first pass of a sequence is its prompt.
        stops: whether the context holds one forward pass, which ends early, after the table's last point.

    Yields:
        The boundary between prompt and generated tokens in the forward passes inside.

    Raises:
        WorkError: on leaving, if an edit did not act in some forward pass.
    """
    boundary, acted, missed = PromptBoundary(prompt_width), set[Point](), Counter[Point]()

    # Any: a hook gets whatever arguments the module is called with.
    def begin(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if kwargs.get("output_hidden_states", getattr(module.config, "output_hidden_states", False)):
            raise InputError(
                "hidden states that transformers returns do not show all edits, and the last one comes after the final norm; "
                "leave output_hidden_states out while edits act, or read the stream with demur.capture"
            )
        boundary.observe(args, kwargs)
        acted.clear()

    def end(*_: Any) -> None:
        missed.update(where for where in table if where not in acted)
        # If only a part of the model is called next, the end of the prompt is not known there.
        boundary.generated = None

    with hooked(model, layout, {where: editing(where, steps, boundary, acted) for where, steps in table.items()}):
        watches = model.register_forward_pre_hook(begin, with_kwargs=True), model.register_forward_hook(end)
        try:
            yield boundary
        finally:
            for watch in watches:
                watch.remove()
    if stops:
        end()
    for where, times in sorted(missed.items()):
        raise WorkError(
            f"the edit at {where.named(len(layout.find_blocks(model)))} acted in {boundary.forwards - times} of "
            f"{boundary.forwards} forward passes of this {layout.family!r} model; the other passes are those of an unedited model"
        )


def editing(where: Point, steps: tuple[StreamEdit, ...], boundary: PromptBoundary, acted: set[Point]) -> Change:
    """Applies the steps of one point, and notes that they acted."""
    placed: dict[torch.device, tuple[StreamEdit, ...]] = {}

    def act(stream: Rows, onto: Rows) -> Rows:
        # The blocks of a spread model are on several devices. The edits of each point are moved to its device once.
        if stream.device not in placed:
            placed[stream.device] = tuple(step.on(stream.device) for step in steps)
        generated = None if boundary.generated is None else boundary.generated.to(stream.device)
        edits = placed[stream.device]
        for index, edit in enumerate(edits, start=1):
            changed = edit.apply(stream, onto, generated)
            if index < len(edits):
                stream = changed if onto is stream else stream + (changed - onto)
            onto = changed
        acted.add(where)
        return onto

    return act


@contextmanager
def observed(
    model: nn.Module, layout: Layout, points: Sequence[Point], positions: Sequence[int], *, stop: bool = False
) -> Iterator[dict[Point, Float[Tensor, "row position d_model"]]]:
    """Each forward pass inside fills the yielded dict with the stream at some points and positions, in float32 on the CPU.

    Inside `edited` this is the edited stream. With `stop`, a forward pass ends after the last of the points, without logits.
    """
    taken: dict[Point, Tensor] = {}
    chosen = list(positions)

    def take(where: Point) -> Change:
        def keep(stream: Rows, onto: Rows) -> None:
            # Indexing with a list copies. A view would show later changes that are made in place.
            taken[where] = stream[:, chosen].detach().float().cpu()
            if stop and len(taken) == len(set(points)):
                raise Stop

        return keep

    with hooked(model, layout, {where: take(where) for where in points}), suppress(Stop):
        yield taken
