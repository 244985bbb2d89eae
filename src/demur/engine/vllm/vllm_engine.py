"""The engine `vllm`: a model that vLLM runs in this process. Needs vLLM, which is best in an environment of its own.

vLLM has no interface to the residual stream. demur reads and edits it with hooks in vLLM's own model (`stream_access.py`). It
does so only if loading has proved, against the same weights in transformers, that the hooks do what they should
(`vllm_proof.py`). Otherwise this engine writes greedy completions without edits, and refuses the rest with the reason.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from demur.core.errors import InputError, NotFinite
from demur.engine.conditions.row_gates import with_open_gates
from demur.engine.continuations.tree_levels import grown
from demur.engine.engine_protocol import LOSS_TOKENS, Branch, Continuation, Decoding, Follow, Need, NextTokens, Row
from demur.engine.read_activations import check_layers, check_positions
from demur.engine.vllm.arms import Tokens
from demur.engine.vllm.stream_access import Wanted
from demur.engine.vllm.vllm_runs import VllmRuns, stacked
from demur.interventions.intervention import edit_sequence
from demur.models.layouts import Point, Site, point

TREE_ROWS = 64
"""The number of rows whose trees are run together, and of branches whose logits are in memory at a time."""


@dataclass(frozen=True, eq=False)
class VllmEngine:
    """A model that vLLM runs. See `Engine` for what each method does.

    Attributes:
        runs: vLLM with the model in it.
        tokenizer: the tokenizer.
        dtype: precision of weights and stream.
        stop_ids: tokens that end a completion.
        pad_id: a padding token; vLLM needs none.
        embedding_rows: the number of rows of the embedding.
        no_access: why the stream of vLLM's model cannot be read and edited; empty if it can.
    """

    runs: VllmRuns
    tokenizer: Any
    dtype: torch.dtype
    stop_ids: tuple[int, ...]
    pad_id: int
    embedding_rows: int
    no_access: str
    name: ClassVar[str] = "vllm"

    @property
    def family(self) -> str:
        """The architecture family."""
        return self.runs.layout.family

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return self.runs.n_layers

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.runs.d_model

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites of the family."""
        return self.runs.layout.sites

    @property
    def device(self) -> torch.device:
        """The CPU: token ids are given as lists, and vLLM moves them itself."""
        return torch.device("cpu")

    def cannot(self, need: Need) -> str:
        """Why something needs another engine; see `Engine.cannot`."""
        if need == "site proof" and not self.no_access:
            return "loading has proved them, and the transformers model of the proof is not kept"
        return self.no_access

    def generate(
        self,
        rows: Sequence[Row],
        decoding: Decoding,
        *,
        batch_tokens: int | None = None,  # noqa: ARG002  vLLM forms its own batches
        batch_rows: int | None = None,
    ) -> Iterator[dict[int, list[int]]]:
        """Greedy completions, one arm after the other. See `Engine.generate`.

        Raises:
            InputError: for a row with an edit if the stream cannot be edited, and for a prompt that is too long.
            WorkError: if an edit did not act.
            NotFinite: with the index of a row whose logits are not finite.
        """
        if any(edit_sequence(row.edits) for row in rows):
            self._require("edit the residual stream")
        for row in rows:
            self.runs.check_length(len(row.prompt), decoding.max_new_tokens)
        return self._generated(with_open_gates(rows, self.read), decoding, batch_rows)

    def _generated(self, rows: Sequence[Row], decoding: Decoding, batch_rows: int | None) -> Iterator[dict[int, list[int]]]:
        given = [Tokens(tuple(row.prompt), len(row.prompt), row.edits) for row in rows]
        for one, outputs in self.runs.completed(given, decoding.max_new_tokens, decoding.stop_ids, batch_rows):
            yield {
                index: self._tokens(output.outputs[0], index, decoding)
                for (_, _, indices), output in zip(one.rows, outputs, strict=True)
                for index in indices
            }

    def _tokens(self, output: Any, row: int, decoding: Decoding) -> list[int]:
        tokens: list[int] = []
        for token, chances in zip(output.token_ids, output.logprobs, strict=True):
            if not math.isfinite(chances[token].logprob):
                raise NotFinite("logits", row, self.dtype)
            tokens.append(int(token))
            if decoding.ends(tokens):
                break
        return tokens

    def read(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        layers: Sequence[int],
        site: Site = "resid_pre",
        positions: Sequence[int] = (-1,),
        batch_tokens: int | None = None,
    ) -> Iterator[tuple[list[int], Float[Tensor, "row layer position d_model"]]]:
        """Activations; see `Engine.read`."""
        self._require("read activations")
        check_layers(layers, site, self.runs.layout, self.n_layers)
        points = [point(layer, site) for layer in layers]
        yield from self.read_points(prompts, points=points, positions=positions, batch_tokens=batch_tokens)

    def read_points(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        points: Sequence[Point],
        positions: Sequence[int] = (-1,),
        batch_tokens: int | None = None,
    ) -> Iterator[tuple[list[int], Float[Tensor, "row point position d_model"]]]:
        """Activations at any points in one pass; see `PointReader.read_points`."""
        self._require("read activations")
        if not prompts:
            return
        check_positions(positions, prompts)
        rows = [Tokens(tuple(ids), len(ids)) for ids in prompts]
        for found in self.runs.prefilled(rows, Wanted(tuple(points), tuple(positions)), batch_tokens=batch_tokens):
            indices, states, _ = stacked(found)
            if not torch.isfinite(states).all():
                row, where = (int(i) for i in torch.nonzero(~torch.isfinite(states).all(-1))[0][:2])
                raise NotFinite("the activations", indices[row], self.dtype, points[where].layer)
            yield indices, states

    def next_tokens(
        self,
        rows: Sequence[Row],
        *,
        layers: Sequence[int] = (),
        batch_tokens: int | None = None,
        finite_only: bool = True,
    ) -> Iterator[NextTokens]:
        """Logits or edited states after the last token; see `Engine.next_tokens`."""
        self._require("give next-token logits")
        rows = with_open_gates(rows, self.read)
        given = [Tokens(tuple(row.prompt), len(row.prompt), row.edits) for row in rows]
        wanted = Wanted(tuple(point(layer, "resid_pre") for layer in layers))
        counts = () if layers else (1,) * len(rows)
        for found in self.runs.prefilled(given, wanted, logits=counts, batch_tokens=batch_tokens):
            indices, states, logits = stacked(found)
            states, logits = states[:, :, 0], logits.flatten(1)
            finite = torch.isfinite(logits).all(-1) & torch.isfinite(states).flatten(1).all(-1)
            if finite_only and not finite.all():
                row = indices[int(torch.nonzero(~finite)[0])]
                raise NotFinite("the activations" if layers else "the logits", row, self.dtype)
            yield NextTokens(indices, logits, states)

    def losses(
        self, rows: Sequence[Continuation], *, batch_tokens: int = LOSS_TOKENS
    ) -> Iterator[tuple[list[int], list[Float[Tensor, " token"]]]]:
        """Losses of continuations; see `Engine.losses`."""
        self._require("give token losses")
        rows = with_open_gates(rows, self.read)
        given = [Tokens((*row.prompt, *row.continuation), len(row.prompt), row.edits) for row in rows]
        # The logits after the last token of the prompt are for the first token of the continuation.
        counts = [len(row.continuation) + 1 for row in rows]
        for found in self.runs.prefilled(given, Wanted(), logits=counts, batch_tokens=batch_tokens):
            losses = []
            for index, one in found:
                targets = torch.tensor(rows[index].continuation, dtype=torch.long)
                logits = one.logits[-len(targets) - 1 : -1].double()
                losses.append(torch.nn.functional.cross_entropy(logits, targets, reduction="none"))
            yield [index for index, _ in found], losses

    def explore(
        self, rows: Sequence[Row], follow: Follow, *, max_new_tokens: int, batch_tokens: int | None = None
    ) -> Iterator[list[int]]:
        """Trees of continuations; see `Engine.explore`. Every branch runs its prompt again, because no cache is kept."""
        self._require("run trees of continuations")
        if max_new_tokens < 1:
            raise InputError(f"max_new_tokens must be at least 1, not {max_new_tokens}")
        rows = with_open_gates(rows, self.read)
        for begin in range(0, len(rows), TREE_ROWS):
            indices = list(range(begin, min(begin + TREE_ROWS, len(rows))))
            pending = [[Branch(row) for row in indices]]
            while pending:
                level = pending.pop()
                if not level or len(level[0].tokens) >= max_new_tokens:
                    continue
                if len(level) > TREE_ROWS:
                    pending += [level[TREE_ROWS:], level[:TREE_ROWS]]
                    continue
                longer, _ = grown(level, self._after(level, rows, batch_tokens), follow)
                pending.append(longer)
            yield indices

    def _after(self, branches: Sequence[Branch], rows: Sequence[Row], batch_tokens: int | None) -> Float[Tensor, "branch vocab"]:
        """The logits after each of some branches."""
        given = [Tokens((*rows[one.row].prompt, *one.tokens), len(rows[one.row].prompt), rows[one.row].edits) for one in branches]
        found: dict[int, Tensor] = {}
        for some in self.runs.prefilled(given, Wanted(), logits=(1,) * len(given), batch_tokens=batch_tokens):
            found.update({index: one.logits[-1] for index, one in some})
        return torch.stack([found[index] for index in range(len(given))])

    def _require(self, what: str) -> None:
        if self.no_access:
            raise InputError(f"the engine 'vllm' cannot {what}: {self.no_access}; use engine='transformers'")
