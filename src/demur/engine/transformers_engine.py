"""The engine that runs transformers models in this process, with hooks on the residual stream."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from demur.engine.conditions.row_gates import with_open_gates
from demur.engine.continuations.token_tree import explore
from demur.engine.decode import decode
from demur.engine.engine_protocol import LOSS_TOKENS, Continuation, Decoding, Follow, Need, NextTokens, Row
from demur.engine.read_activations import point_activations, stream_activations
from demur.engine.score import continuation_losses, next_tokens
from demur.models.device_placement import input_device, weights_dtype
from demur.models.layouts import Layout, Point, Site, d_model_of
from demur.models.tokenizers import embedding_rows


@dataclass(frozen=True, eq=False)
class TransformersEngine:
    """A transformers model with its tokenizer and the layout of its family. See `Engine` for what each method does.

    Attributes:
        model: the transformers model.
        tokenizer: its tokenizer.
        layout: where its family reads and writes the residual stream.
    """

    model: PreTrainedModel
    tokenizer: Any
    layout: Layout
    name: ClassVar[str] = "transformers"

    @property
    def family(self) -> str:
        """The architecture family."""
        return self.layout.family

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return len(self.layout.find_blocks(self.model))

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return d_model_of(self.model)

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the stream, and of the weights that are not quantised."""
        return weights_dtype(self.model)

    @property
    def device(self) -> torch.device:
        """The device that token ids have to be on. The weights are on it too, unless they are spread."""
        return input_device(self.model)

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Tokens that end a completion: the generation config's and the tokenizer's."""
        configured = self.model.generation_config.eos_token_id if self.model.generation_config is not None else None
        found = configured if isinstance(configured, list) else [configured]
        return tuple(sorted({int(i) for i in (*found, self.tokenizer.eos_token_id) if i is not None}))

    @property
    def pad_id(self) -> int:
        """The token used as padding. Padding is masked, so any token will do."""
        # A pad token that was added to the tokenizer alone has no row in the embedding.
        usable = [i for i in (self.tokenizer.pad_token_id, *self.stop_ids) if i is not None and i < self.embedding_rows]
        return int((usable or (0,))[0])

    @property
    def embedding_rows(self) -> int:
        """The number of rows of the embedding. A prompt with a token id from this number on cannot be run."""
        return embedding_rows(self.model)

    def cannot(self, need: Need) -> str:  # noqa: ARG002
        """Always empty, because this engine can do everything."""
        return ""

    def generate(
        self, rows: Sequence[Row], decoding: Decoding, *, batch_tokens: int | None = None, batch_rows: int | None = None
    ) -> Iterator[dict[int, list[int]]]:
        """Greedy completions; see `decode`."""
        rows = with_open_gates(rows, self.read)
        return decode(self.model, self.layout, rows, decoding, batch_tokens=batch_tokens, batch_rows=batch_rows)

    def read(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        layers: Sequence[int],
        site: Site = "resid_pre",
        positions: Sequence[int] = (-1,),
        batch_tokens: int | None = None,
    ) -> Iterator[tuple[list[int], Float[Tensor, "row layer position d_model"]]]:
        """Activations; see `stream_activations`."""
        return stream_activations(
            self.model,
            self.layout,
            prompts,
            layers=layers,
            site=site,
            positions=positions,
            pad_id=self.pad_id,
            batch_tokens=batch_tokens,
        )

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites of the family."""
        return self.layout.sites

    def read_points(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        points: Sequence[Point],
        positions: Sequence[int] = (-1,),
        batch_tokens: int | None = None,
    ) -> Iterator[tuple[list[int], Float[Tensor, "row point position d_model"]]]:
        """Activations at any points in one pass; see `point_activations`."""
        return point_activations(
            self.model,
            self.layout,
            prompts,
            points=points,
            layers=[where.layer for where in points],
            positions=positions,
            pad_id=self.pad_id,
            batch_tokens=batch_tokens,
        )

    def next_tokens(
        self,
        rows: Sequence[Row],
        *,
        layers: Sequence[int] = (),
        batch_tokens: int | None = None,
        finite_only: bool = True,
    ) -> Iterator[NextTokens]:
        """Logits or edited states after the last token; see `score.next_tokens`."""
        return next_tokens(
            self.model,
            self.layout,
            with_open_gates(rows, self.read),
            layers=layers,
            pad_id=self.pad_id,
            batch_tokens=batch_tokens,
            finite_only=finite_only,
        )

    def losses(
        self, rows: Sequence[Continuation], *, batch_tokens: int = LOSS_TOKENS
    ) -> Iterator[tuple[list[int], list[Float[Tensor, " token"]]]]:
        """Losses of continuations; see `continuation_losses`."""
        rows = with_open_gates(rows, self.read)
        return continuation_losses(self.model, self.layout, rows, pad_id=self.pad_id, batch_tokens=batch_tokens)

    def explore(
        self, rows: Sequence[Row], follow: Follow, *, max_new_tokens: int, batch_tokens: int | None = None
    ) -> Iterator[list[int]]:
        """Trees of continuations; see `token_tree.explore`."""
        return explore(
            self.model,
            self.layout,
            with_open_gates(rows, self.read),
            follow,
            max_new_tokens=max_new_tokens,
            pad_id=self.pad_id,
            batch_tokens=batch_tokens,
        )
