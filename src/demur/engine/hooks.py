"""Capture and edit of the residual stream: the only file in demur that registers a hook.

Edits act on the stream itself: an edit at `resid_mid` reaches both the MLP and the skip connection. Hooks live inside context
managers and are gone after an exception. Every edit that was asked for is counted; one that did not act raises `WorkError`.
`output_hidden_states` is never used: its last entry lies behind the final norm and edits are not visible in it.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn

from demur.core.errors import InputError, WorkError
from demur.engine.prompt_boundary import Columns
from demur.engine.row_sharing import Sharing
from demur.interventions.intervention import EditTable, StreamEdit
from demur.models.layouts import Layout, branch, point

Rows = Float[Tensor, "row seq d_model"]
Change = Callable[[Rows, Rows], Rows | None]
"""Gets the stream at a point, and the tensor through which it can be changed there: the stream itself, or at resid_mid what the
attention branch is about to add to it. Returns that tensor's replacement, or None to leave it."""


_entered: WeakKeyDictionary[nn.Module, dict[int, dict[int, Tensor]]] = WeakKeyDictionary()
"""For each model, what the contexts that are open keep of its blocks' inputs: an inner one may change them after an outer one."""


class _Stop(Exception):
    """Ends a forward pass behind the last point that is needed."""


@contextmanager
def _hooked(model: nn.Module, layout: Layout, changes: dict[int, Change]) -> Iterator[None]:
    """Calls `changes[point]` at its point in every forward pass while the context lasts."""
    refuse_compiled(model)
    blocks = layout.find_blocks(model)
    inputs: dict[int, Tensor] = {}
    around = _entered.setdefault(model, {})

    def before(layer: int, change: Change | None, keep: bool) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            stream = args[0] if args else kwargs["hidden_states"]
            changed = None if change is None else change(stream, stream)
            if keep:
                inputs[layer] = stream if changed is None else changed
            if changed is None:
                return None
            for other in around.values():
                if layer in other:
                    other[layer] = changed
            return ((changed, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": changed})

        return hook

    def within(layer: int, change: Change) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            # Spread over several devices, a block's input may still be on the one before.
            found = first(output)
            stream = inputs.pop(layer).to(found.device)
            if found.shape != stream.shape:
                raise _misfit(layout, layer, layout.attention, found, stream)
            if layout.multiplier == 1:
                return _like(output, change(stream + found, found))
            # Only the difference is divided, so that rows without an edit keep every bit.
            added = found.to(torch.promote_types(found.dtype, torch.float32)) * layout.multiplier
            changed = change(stream + found * layout.multiplier, added)
            return _like(output, None if changed is None else (found + (changed - added) / layout.multiplier).to(found.dtype))

        return hook

    def after(change: Change) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            stream = first(output)
            return _like(output, change(stream, stream))

        return hook

    def left_out(module: nn.Module, args: tuple[Any, ...]) -> None:
        raise InputError(
            f"an image reached a block of this {layout.family!r} model that text does not run through; demur edits and reads its "
            "stream for text alone"
        )

    with ExitStack() as stack:
        around[id(inputs)] = inputs
        stack.callback(around.pop, id(inputs))
        for block in layout.find_left_out(model):
            stack.callback(block.register_forward_pre_hook(left_out).remove)
        for layer, block in enumerate(blocks):
            pre, mid = changes.get(point(layer, "resid_pre")), changes.get(point(layer, "resid_mid"))
            if pre is not None or mid is not None:
                stack.callback(block.register_forward_pre_hook(before(layer, pre, mid is not None), with_kwargs=True).remove)
            if mid is not None:
                stack.callback(branch(block, layout.attention).register_forward_hook(within(layer, mid)).remove)
        last = changes.get(point(len(blocks) - 1, "resid_post"))
        if last is not None:
            stack.callback(blocks[-1].register_forward_hook(after(last)).remove)
        yield


def _misfit(layout: Layout, layer: int, path: str, found: Tensor | None, stream: Tensor) -> WorkError:
    what = "did not run" if found is None else f"gives {tuple(found.shape)}, the stream is {tuple(stream.shape)}"
    return WorkError(
        f"in layer {layer} of this {layout.family!r} model the module at {path!r} {what}; the layout does not describe it"
    )


def refuse_compiled(model: nn.Module) -> None:
    """Raises `InputError` for a model of which any part was compiled: a graph keeps the hooks it was traced with, or none."""
    for name, module in model.named_modules():
        in_place = getattr(module, "_compiled_call_impl", None) is not None
        if in_place or hasattr(module, "_orig_mod") or hasattr(module.forward, "_torchdynamo_orig_callable"):
            where = f"{name!r} of this model" if name else "this model"
            raise InputError(
                f"{where} is compiled, and edits would not be seen inside its graph; use the model before torch.compile"
            )


def first(output: Any) -> Tensor:
    """The tensor that a module hands on: its output, or the first of several."""
    found: Tensor = output[0] if isinstance(output, tuple) else output
    return found


def _like(output: Any, changed: Tensor | None) -> Any:
    """What a forward hook returns: None to leave the output, else the change in the output's own form."""
    if changed is None:
        return None
    return (changed, *output[1:]) if isinstance(output, tuple) else changed


@contextmanager
def parted(model: nn.Module, layout: Layout, sharing: Sharing) -> Iterator[None]:
    """Inside, the rows of the model's batch are those of the first span, and each later span runs its own rows.

    Has to be entered before `edited` and `observed`, which then see each block's own rows. Edits from further out see them too.
    """
    called = len(sharing.running[0])

    @cache
    def places(span: int, before: int, device: torch.device) -> Tensor:
        return torch.tensor(sharing.origins(span, before), device=device)

    def for_rows(value: Any, span: int) -> Any:
        """What the model made for each row it was called with, masks and rotary angles, for the rows that run here."""
        if isinstance(value, tuple):
            return tuple(for_rows(one, span) for one in value)
        # What is there once for all rows broadcasts.
        each = isinstance(value, Tensor) and value.ndim > 1 and value.shape[0] == called > 1
        return value[places(span, 0, value.device)] if each else value

    def hook(layer: int) -> Callable[..., Any]:
        span = sharing.span(layer)

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
) -> Iterator[Columns]:
    """Applies a table of edits to every forward pass inside the context; row i of the table is row i of the batch.

    A table for one row holds for every row of any batch. Raises `WorkError` on leaving if some edit did not act in a forward pass
    that the model finished, or, where the only pass `stops` behind the table's last point, in that one.
    """
    columns, acted, silent = Columns(prompt_width), set[int](), Counter[int]()

    def change(where: int) -> Change:
        placed: dict[torch.device, tuple[StreamEdit, ...]] = {}

        def act(stream: Rows, onto: Rows) -> Rows:
            # A spread model's blocks are on several devices; each point's edits move there once.
            if stream.device not in placed:
                placed[stream.device] = tuple(edit.on(stream.device) for edit in table[where])
            generated = None if columns.generated is None else columns.generated.to(stream.device)
            edits = placed[stream.device]
            for index, edit in enumerate(edits, start=1):
                changed = edit.apply(stream, onto, generated)
                if index < len(edits):
                    stream = changed if onto is stream else stream + (changed - onto)
                onto = changed
            acted.add(where)
            return onto

        return act

    def begin(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if kwargs.get("output_hidden_states", getattr(module.config, "output_hidden_states", False)):
            raise InputError(
                "hidden states that transformers returns do not show all edits, and the last one lies behind the final norm; "
                "leave output_hidden_states out while edits act, or read the stream with demur.capture"
            )
        columns.observe(args, kwargs)
        acted.clear()

    def end(*_: Any) -> None:
        silent.update(where for where in table if where not in acted)
        # A pass of a part of the model does not tell its columns.
        columns.generated = None

    with _hooked(model, layout, {where: change(where) for where in table}):
        watches = model.register_forward_pre_hook(begin, with_kwargs=True), model.register_forward_hook(end)
        try:
            yield columns
        finally:
            for watch in watches:
                watch.remove()
    if stops:
        end()
    for where, times in sorted(silent.items()):
        raise WorkError(
            f"the edit at point {where} of the stream acted in {columns.forwards - times} of {columns.forwards} forward passes "
            f"of this {layout.family!r} model; its results would be those of an unedited model"
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
            # Indexing with a list copies: a view would show what is done to the stream in place later.
            taken[where] = stream[:, columns].detach().float().cpu()
            if stop and len(taken) == len(set(points)):
                raise _Stop

        return look

    with _hooked(model, layout, {where: take(where) for where in points}), suppress(_Stop):
        yield taken


@dataclass(frozen=True)
class Branches:
    """Some rows of one block: its input, what its two branches are declared to add, its output; float64, (row, seq, d_model).

    `rounding` is the relative spacing of numbers in the stream's own dtype.
    """

    before: Tensor
    attention: Tensor
    mlp: Tensor
    after: Tensor
    rounding: float


@contextmanager
def recorded_branches(
    model: nn.Module, layout: Layout, rows: Mapping[int, Sequence[int]] | None = None
) -> Iterator[dict[int, Branches]]:
    """Fills layer -> branches in the forward pass inside the context; inside `edited` they are those of the edited stream.

    `rows` says which rows of each layer are kept, all unless given. Raises `WorkError` where a branch did not run, or its output
    does not have the stream's shape.
    """
    seen: dict[int, Branches] = {}
    parts: dict[str, Tensor] = {}
    paths = {"attention": layout.attention, "MLP": layout.mlp}

    def keep(part: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            # A copy: some blocks add to their branches' outputs in place.
            parts[part] = first(output).detach().clone()

        return hook

    def close(layer: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            stream = args[0] if args else kwargs["hidden_states"]
            kept = slice(None) if rows is None else list(rows[layer])

            def added(part: str, path: str) -> Tensor:
                found = parts.pop(part, None)
                if found is None or found.shape[-1] != stream.shape[-1] or found.numel() != stream.numel():
                    raise _misfit(layout, layer, path, found, stream)
                return found.reshape(stream.shape)[kept].cpu().double() * layout.multiplier

            attention, mlp = (added(part, path) for part, path in paths.items())
            before, after = (one.detach()[kept].cpu().double() for one in (stream, first(output)))
            seen[layer] = Branches(before, attention, mlp, after, torch.finfo(stream.dtype).eps)

        return hook

    with ExitStack() as stack:
        for layer, block in enumerate(layout.find_blocks(model)):
            for part, path in paths.items():
                stack.callback(branch(block, path).register_forward_hook(keep(part)).remove)
            stack.callback(block.register_forward_hook(close(layer), with_kwargs=True).remove)
        yield seen
