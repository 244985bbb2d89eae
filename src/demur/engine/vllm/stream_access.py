"""Reads and edits the residual stream inside vLLM's own model, while vLLM runs it in this process.

vLLM's blocks get the stream in two parts, which they add only in their fused norms: `hidden_states`, the output of the last
branch, and `residual`, the stream before it. A block that gets no residual takes its hidden states as the whole stream, as the
first block does. So an edited stream is given to a block as its hidden states alone, and behind the last block with a residual of
zeros. Between attention and MLP, the edit acts at the output of attention, as in `engine/hooks.py`. Each call of vLLM applies one
table of edits to all of its rows.

An error in a hook would leave vLLM with rows that are half done. So hooks keep their first error, and it is raised when the call
has ended.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from demur.core.errors import InputError, WorkError
from demur.engine.hooks import Change, Hook, after_attention, editing, refuse_compiled
from demur.engine.prompt_boundary import PromptBoundary
from demur.engine.vllm.flat_batch import ExpectedRows, Ids, Passed
from demur.interventions.edit_table import EditTable
from demur.models.layouts import Layout, Point, branch, point


@dataclass(frozen=True)
class Wanted:
    """What is read of each row whose tokens all run in one forward pass.

    Attributes:
        points: the points of the stream.
        positions: the tokens whose stream is read, counted from the row's end: -1 is its last token.
        logits: token ids of a row -> after how many of its last tokens logits are wanted; none for rows that are not named.
    """

    points: tuple[Point, ...] = ()
    positions: tuple[int, ...] = (-1,)
    logits: Mapping[Ids, int] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Taken:
    """What was read of a row, in float32 on the CPU.

    Attributes:
        states: the edited stream, (point, position, d_model).
        logits: the logits after its last tokens, (token, vocab).
    """

    states: Float[Tensor, "point position d_model"]
    logits: Float[Tensor, "token vocab"]


@dataclass(frozen=True, eq=False)
class StreamAccess:
    """The model inside vLLM, and where it has its residual stream.

    Attributes:
        model: vLLM's module.
        layout: the layout of its family.
        starts: called in a forward pass; where each row starts among the tokens, and where the last one ends.
    """

    model: Any  # a torch module with vLLM's method compute_logits
    layout: Layout
    starts: Callable[[], list[int]]

    @contextmanager
    def acting(self, expected: ExpectedRows, table: EditTable, wanted: Wanted) -> Iterator[dict[Ids, Taken]]:
        """Inside the context, vLLM runs with these edits, and the yielded dict gets what is wanted of each row.

        Args:
            expected: the rows that will run.
            table: the edits, one row for all rows.
            wanted: what is read.

        Raises:
            WorkError: on leaving, if rows cannot be told apart or an edit did not act in a forward pass.
            InputError: for a compiled model, and for a layout that does not fit.
        """
        refuse_compiled(self.model)
        watch = _Watch(self, expected, table, wanted)
        blocks, inputs = self.layout.find_blocks(self.model), dict[int, Tensor]()
        points = {*table, *wanted.points}
        with ExitStack() as stack:
            stack.callback(self.model.register_forward_pre_hook(watch.kept(watch.begin), with_kwargs=True).remove)
            for layer, block in enumerate(blocks):
                pre, mid = (one if one in points else None for one in (Point(layer, "resid_pre"), Point(layer, "resid_mid")))
                if pre is not None or mid is not None:
                    before = _before_block(None if pre is None else watch.change(pre), layer, inputs if mid else None)
                    stack.callback(block.register_forward_pre_hook(watch.kept(before), with_kwargs=True).remove)
                if mid is not None:
                    within = watch.between(layer, inputs, after_attention(self.layout, layer, watch.change(mid), inputs))
                    stack.callback(branch(block, self.layout.attention).register_forward_hook(watch.kept(within)).remove)
            last = point(len(blocks) - 1, "resid_post")
            if last in points:
                stack.callback(blocks[-1].register_forward_hook(watch.kept(_after_last(watch.change(last)))).remove)
            stack.callback(self.model.register_forward_hook(watch.kept(watch.end)).remove)
            yield watch.taken
        if watch.error is not None:
            raise watch.error


class _Watch:
    """Follows the forward passes of one call of vLLM."""

    def __init__(self, access: StreamAccess, expected: ExpectedRows, table: EditTable, wanted: Wanted) -> None:
        self.taken: dict[Ids, Taken] = {}
        self.error: Exception | None = None
        self._access, self._expected, self._table, self._wanted = access, expected, table, wanted
        self._boundary, self._acted, self._streams = PromptBoundary(), set[Point](), dict[Point, Tensor]()
        self._passed: Passed | None = None

    def kept(self, hook: Hook) -> Hook:
        """The hook without errors: the first one is kept, and nothing is done after it."""

        def guarded(*given: Any) -> Any:
            if self.error is None:
                try:
                    return hook(*given)
                except (InputError, WorkError) as error:
                    self.error = error
                except Exception as error:  # raised when the call has ended
                    family = self._access.layout.family
                    said = f"reading or editing the stream of vLLM's model of family {family!r} failed ({error!r})"
                    self.error = WorkError(said)
                    self.error.__cause__ = error
            return None

        return guarded

    def begin(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, object]) -> None:
        """Tell the rows of the next forward pass apart."""
        given = signature(self._access.model.forward).bind(*args, **kwargs).arguments
        ids, positions = given.get("input_ids"), given.get("positions")
        if ids is None or positions is None or positions.ndim != 1:
            raise WorkError("vLLM did not give its model one token id and one position for each token; use engine='transformers'")
        self._passed = self._expected.recognise(ids.tolist(), positions.tolist(), self._access.starts())
        self._boundary.generated = self._passed.generated.to(ids.device)
        self._acted.clear()
        self._streams.clear()

    def change(self, where: Point) -> Change:
        """Edits and reads the stream at one point.

        The stream is (token, d_model) in vLLM's own models and (1, token, d_model) in those that it takes from transformers.
        Tables of edits take the second form.
        """
        steps = self._table.get(where)
        act = None if steps is None else editing(where, steps, self._boundary, self._acted)

        def change(stream: Tensor, onto: Tensor) -> Tensor | None:
            assert self._passed is not None, "begin ran before"
            n, shape = len(self._passed.generated), tuple(stream.shape)
            if shape[:-1] not in ((n,), (1, n)):
                raise WorkError(f"the stream at {where} has shape {shape}, but the forward pass has {n} tokens")
            changed = None
            if act is not None:
                rows = stream.reshape(1, n, -1)
                # If the stream itself is changed, edits have to see that it is the same tensor.
                found = act(rows, rows if onto is stream else onto.reshape(1, n, -1))
                changed = None if found is None else found.reshape(onto.shape)
            if where in self._wanted.points:
                now = stream if changed is None else changed if onto is stream else stream + (changed - onto)
                chosen = [span.stop + place for span, _ in self._passed.whole for place in self._wanted.positions]
                self._streams[where] = now.reshape(n, -1)[chosen].detach().float().cpu()
            return changed

        return change

    def between(self, layer: int, inputs: dict[int, Tensor], hook: Hook) -> Hook:
        """The hook after attention, which needs what the hook before the block has stored."""

        def checked(*given: Any) -> Any:
            if layer not in inputs:
                raise self._missed(Point(layer, "resid_pre"))
            return hook(*given)

        return checked

    def _missed(self, where: Point) -> WorkError:
        layout = self._access.layout
        return WorkError(
            f"vLLM's model of family {layout.family!r} did not pass {where.named(len(layout.find_blocks(self._access.model)))} "
            "where demur reads and edits it; use engine='transformers'"
        )

    def end(self, _: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        """Check that every edit acted in this forward pass, and keep what is wanted of its rows."""
        for where in sorted({*self._table, *self._wanted.points}):
            if where not in (self._acted if where in self._table else self._streams):
                raise self._missed(where)
        assert self._passed is not None, "begin ran before"
        output = output.reshape(len(self._passed.generated), -1)
        for number, (span, ids) in enumerate(self._passed.whole):
            count = self._wanted.logits.get(ids, 0)
            logits = torch.empty(0, 0)
            if count:
                logits = self._access.model.compute_logits(output[span.stop - count : span.stop]).detach().float().cpu()
            width = len(self._wanted.positions)
            rows = [self._streams[where][number * width : (number + 1) * width] for where in self._wanted.points]
            self.taken[ids] = Taken(torch.stack(rows) if rows else torch.empty(0, width, output.shape[-1]), logits)


def _before_block(change: Change | None, layer: int, inputs: dict[int, Tensor] | None) -> Hook:
    """A hook at a block's input. It stores the stream in `inputs`, if given, for the hook after attention."""

    # Any: a hook gets whatever arguments the module is called with.
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, object]) -> Any:
        bound = signature(module.forward).bind(*args, **kwargs)
        hidden, residual = bound.arguments.get("hidden_states"), bound.arguments.get("residual")
        if not isinstance(hidden, Tensor):
            raise WorkError(f"block {layer} of vLLM's model takes no hidden_states; use engine='transformers'")
        stream = hidden if residual is None else hidden + residual
        changed = None if change is None else change(stream, stream)
        if inputs is not None:
            inputs[layer] = stream if changed is None else changed
        if changed is None:
            return None
        bound.arguments["hidden_states"] = changed
        if residual is not None:
            bound.arguments["residual"] = None
        return bound.args, bound.kwargs

    return hook


def _after_last(change: Change) -> Hook:
    """A hook behind the last block, before the final norm adds both parts of the stream."""

    def hook(_: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        if isinstance(output, Tensor):
            return change(output, output)
        hidden, residual = output
        stream = hidden + residual
        changed = change(stream, stream)
        return None if changed is None else (changed, torch.zeros_like(residual))

    return hook
