"""Records and changes what the attention and the MLP of each block add to the stream.

`hooks.py` names the files that register hooks.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from demur.engine.hooks import first, like_output, misfit
from demur.models.layouts import Layout, branch

OutputChange = Callable[[Tensor, Tensor], Tensor | None]
"""Gets a module's input and output, and gives the output to use in its place, or None for no change."""


@dataclass(frozen=True)
class Branches:
    """What one block did to some rows: tensors of shape (row, seq, d_model), in float64 on the CPU.

    Attributes:
        before: the block's input.
        attention: what the attention branch adds, as the layout declares it.
        mlp: what the MLP branch adds, as the layout declares it.
        after: the block's output.
        rounding: the relative spacing of numbers in the stream's own dtype.
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
    """The forward pass inside the context fills the yielded dict, layer -> branches. Inside `edited` the stream is edited.

    Args:
        model: the model.
        layout: the layout of its family.
        rows: the rows to keep, by layer; all by default.

    Raises:
        WorkError: if a branch did not run, or its output does not have the stream's shape.
    """
    seen: dict[int, Branches] = {}
    parts: dict[str, Tensor] = {}
    paths = {"attention": layout.attention, "MLP": layout.mlp}

    def keep(part: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            # Copied, because some blocks add to the outputs of their branches in place.
            parts[part] = first(output).detach().clone()

        return hook

    def close(layer: int) -> Callable[..., None]:
        # Any: a hook gets whatever arguments the module is called with.
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            stream = args[0] if args else kwargs["hidden_states"]
            kept = slice(None) if rows is None else list(rows[layer])

            def added(part: str, path: str) -> Tensor:
                found = parts.pop(part, None)
                if found is None or found.shape[-1] != stream.shape[-1] or found.numel() != stream.numel():
                    raise misfit(layout, layer, path, found, stream)
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


@contextmanager
def changed_outputs(changes: Mapping[nn.Module, OutputChange]) -> Iterator[None]:
    """Inside the context, the output of each module is what its function gives.

    Args:
        changes: the modules with their functions. The tensors are the module's first argument and the first of its outputs.
    """

    def hook_of(change: OutputChange) -> Callable[..., Any]:
        # Any: a hook gets whatever arguments the module is called with.
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: Any, output: Any) -> Any:
            given = args[0] if args else next(iter(kwargs.values()))
            return like_output(output, change(given, first(output)))

        return hook

    with ExitStack() as stack:
        for module, change in changes.items():
            stack.callback(module.register_forward_hook(hook_of(change), with_kwargs=True).remove)
        yield
