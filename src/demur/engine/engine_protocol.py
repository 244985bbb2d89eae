"""The protocol of an engine, which runs a model: it takes rows of token ids and gives tokens, activations, logits or losses.

An engine works on token ids and knows no text. To add one, write a class that follows `Engine` and a class that follows
`EngineKind` (in `checkpoints.py`), and register the second as a part of kind `engine`. An engine need not be able to do
everything: `cannot` gives the reason, and demur refuses the work before it starts.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from demur.core.errors import InputError
from demur.interventions.intervention import RowEdits
from demur.models.device_placement import MaxMemory
from demur.models.layouts import Point, Site

Need = Literal["edits", "activations", "next tokens", "losses", "branches", "site proof"]
"""What an engine may be able to do. Plain generation is not in the list, because every engine can do it."""

LOSS_TOKENS = 1024
"""The most tokens in a batch if logits are computed at every position."""


@dataclass(frozen=True)
class Row:
    """One prompt with its edits, which act from its first token on.

    Attributes:
        prompt: token ids of the prompt.
        edits: None, one edit, or several that act in order.
    """

    prompt: tuple[int, ...]
    edits: RowEdits = None


@dataclass(frozen=True)
class Continuation:
    """A prompt with given tokens that follow it, and with edits of the stream.

    Attributes:
        prompt: token ids of the prompt.
        continuation: token ids that follow; edits treat them as generated tokens.
        edits: None, one edit, or several that act in order.
    """

    prompt: tuple[int, ...]
    continuation: tuple[int, ...]
    edits: RowEdits = None


@dataclass(frozen=True)
class Decoding:
    """The settings of greedy decoding.

    Attributes:
        max_new_tokens: the most new tokens in a row.
        stop_ids: tokens that end a row; such a token is kept as the row's last. Empty for the published code, which never stops
            early.
        pad_id: the token used as padding. Padding is masked, so any token will do.
        use_cache: whether keys and values are kept between decode steps.
        enough: called with all new tokens of a row after each new one; the row ends when it returns True.
    """

    max_new_tokens: int = 16
    stop_ids: tuple[int, ...] = ()
    pad_id: int = 0
    use_cache: bool = True
    enough: Callable[[Sequence[int]], bool] | None = None

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise InputError(f"max_new_tokens must be at least 1, not {self.max_new_tokens}")

    def ends(self, tokens: Sequence[int]) -> bool:
        """Whether a row with these new tokens is finished."""
        return tokens[-1] in self.stop_ids or (self.enough is not None and self.enough(tokens))


@dataclass(frozen=True)
class Branch:
    """A beginning of a continuation of a row.

    Attributes:
        row: the index of the row.
        tokens: the token ids after its prompt; edits treat them as generated tokens.
    """

    row: int
    tokens: tuple[int, ...] = ()


Follow = Callable[[Sequence[Branch], Float[Tensor, "branch vocab"]], Sequence[Sequence[int]]]
"""Gets some branches with the logits after each, and gives for each branch the tokens that are to be run after it."""


@dataclass(frozen=True, eq=False)
class NextTokens:
    """For some rows, the logits after the last token, or the stream at that token, in float32 on the CPU.

    Attributes:
        indices: which rows these are.
        logits: (row, vocab); empty if layers were asked for.
        states: the stream at `resid_pre` of the layers asked for, (row, layer, d_model); empty if none were.
    """

    indices: list[int]
    logits: Float[Tensor, "row vocab"]
    states: Float[Tensor, "row layer d_model"]


class Engine(Protocol):
    """A model that is loaded and ready to run.

    The result of a row does not depend on the other rows of its batch.
    """

    @property
    def name(self) -> str:
        """The name of the kind of engine, for messages."""
        ...

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer, with the interface of a transformers tokenizer."""
        ...

    @property
    def family(self) -> str:
        """The architecture family, the `model_type` of the model's config."""
        ...

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        ...

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the stream."""
        ...

    @property
    def device(self) -> torch.device:
        """The device that token ids have to be on."""
        ...

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Tokens that end a completion."""
        ...

    @property
    def pad_id(self) -> int:
        """The token used as padding."""
        ...

    def cannot(self, need: Need) -> str:
        """Why the engine cannot do something.

        Args:
            need: what the engine would have to do.

        Returns:
            The reason in a clause without a full stop; empty if the engine can do it.
        """
        ...

    def generate(
        self, rows: Sequence[Row], decoding: Decoding, *, batch_tokens: int | None = None, batch_rows: int | None = None
    ) -> Iterator[dict[int, list[int]]]:
        """Greedy completions, batch after batch.

        Args:
            rows: prompts with their edits.
            decoding: the settings.
            batch_tokens: the most tokens in a batch, padding and new ones included; by default the engine chooses.
            batch_rows: the most rows in a batch.

        Returns:
            For each finished batch, row index -> new token ids.

        Raises:
            NotFinite: with the index of a row whose logits are not finite.
        """
        ...

    def read(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        layers: Sequence[int],
        site: Site = "resid_pre",
        positions: Sequence[int] = (-1,),
        batch_tokens: int | None = None,
    ) -> Iterator[tuple[list[int], Float[Tensor, "row layer position d_model"]]]:
        """Activations of the unedited residual stream, batch after batch.

        Args:
            prompts: token ids.
            layers: the layers to read.
            site: where in each layer.
            positions: token positions, counted from the prompt's end: -1 is its last token.
            batch_tokens: the most tokens in a batch.

        Returns:
            For each batch, the indices of its prompts and their activations, float32 on the CPU.

        Raises:
            InputError: if there are no layers, and for a layer, site or position that does not exist.
            NotFinite: with the index of a prompt and the layer where an activation is not finite.
        """
        ...

    def next_tokens(
        self,
        rows: Sequence[Row],
        *,
        layers: Sequence[int] = (),
        batch_tokens: int | None = None,
        finite_only: bool = True,
    ) -> Iterator[NextTokens]:
        """The logits after each row's last token, or its edited stream there, batch after batch.

        Args:
            rows: prompts with their edits.
            layers: the layers whose `resid_pre` is wanted in place of logits.
            batch_tokens: the most tokens in a batch.
            finite_only: whether to raise an error for numbers that are not finite.

        Returns:
            One `NextTokens` a batch.

        Raises:
            NotFinite: if `finite_only`, with the index of a row whose numbers are not finite.
        """
        ...

    def losses(
        self, rows: Sequence[Continuation], *, batch_tokens: int = LOSS_TOKENS
    ) -> Iterator[tuple[list[int], list[Float[Tensor, " token"]]]]:
        """The loss of every token of given continuations, batch after batch.

        Args:
            rows: prompts, continuations and edits.
            batch_tokens: the most tokens in a batch.

        Returns:
            For each batch, the indices of its rows and each row's loss of every continuation token in nats, float64 on the CPU.
        """
        ...

    def explore(
        self, rows: Sequence[Row], follow: Follow, *, max_new_tokens: int, batch_tokens: int | None = None
    ) -> Iterator[list[int]]:
        """Run many continuations of each row as a tree, so that what they share is run once.

        `follow` is called for each row with the branch that has no tokens yet, and then for every branch that it asked for. If a
        batch does not fit into memory, its rows start again with the branch without tokens.

        Args:
            rows: prompts with their edits.
            follow: chooses the tokens after each branch. It is not called for branches of `max_new_tokens` tokens or more.
            max_new_tokens: the most tokens in a continuation, counting the one that is not run.
            batch_tokens: the most tokens in a batch, padding and new ones included; by default the engine chooses.

        Returns:
            For each finished batch, the indices of its rows.

        Raises:
            NotFinite: with the index of a row with logits that are not finite.
        """
        ...


@runtime_checkable
class PointReader(Protocol):
    """What an engine may also be able to do: read several points of the stream in one pass, for edits that need means there."""

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites of the model's family."""
        ...

    def read_points(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        points: Sequence[Point],
        positions: Sequence[int] = (-1,),
        batch_tokens: int | None = None,
    ) -> Iterator[tuple[list[int], Float[Tensor, "row point position d_model"]]]:
        """Activations of the unedited residual stream, batch after batch.

        Args:
            prompts: token ids.
            points: the points to read. The one after the last block is `resid_pre` of layer `n_layers`.
            positions: token positions, counted from the prompt's end: -1 is its last token.
            batch_tokens: the most tokens in a batch.

        Returns:
            For each batch, the indices of its prompts and their activations, float32 on the CPU.

        Raises:
            InputError: for a position that is not in every prompt.
            NotFinite: with the index of a prompt and the layer where an activation is not finite.
        """
        ...


@dataclass(frozen=True)
class LoadRequest:
    """The arguments of `demur.load_checkpoint`, which documents them."""

    model: str
    name: str
    adapter: str | None = None
    revision: str | None = None
    dtype: str = "float32"
    quantise: str | None = None
    device: str = "auto"
    max_memory: MaxMemory | None = None
