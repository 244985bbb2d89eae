"""Checkpoints in memory: an engine that runs the weights, and facts about the weights.

A loaded checkpoint is in evaluation mode. An adapter is merged in memory, or stays separate if the weights are quantised.
Two small forward passes have proved the sites of its layout. Files that are already on this machine are not downloaded again, and
no remote code runs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from transformers import PreTrainedModel

from demur.core.errors import InputError
from demur.core.html_repr import facts_table
from demur.core.registry import registry
from demur.engine.engine_protocol import Engine, LoadRequest, Need
from demur.engine.site_proof import prove_sites
from demur.engine.transformers_engine import TransformersEngine
from demur.models import quantisation
from demur.models.adapters.merged_adapter import unwrapped
from demur.models.device_placement import MaxMemory, bytes_by_device, weights_dtype
from demur.models.families import layout_of
from demur.models.fingerprint import fingerprint, with_fact
from demur.models.layouts import Layout
from demur.models.prepacked_weights import forget

_DOING: dict[Need, str] = {
    "edits": "edit the residual stream",
    "activations": "read activations",
    "next tokens": "give next-token logits",
    "losses": "give token losses",
    "branches": "run trees of continuations",
    "site proof": "prove its sites",
}


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """One set of weights, loaded and ready to use. Make one with `demur.load_checkpoint` or `demur.wrap`.

    Attributes:
        engine: what runs the weights.
        fingerprint: a hash over every byte of the weights, the same in every process for equal files and equal dtype.
        name: its name in messages and results.
        source: where the weights came from.
        adapter: the PEFT adapter, None if there is none.
        quantised: how the weights are quantised, None if they are not.
        facts: further facts that a run stores: dtype, device, revision, a digest of its settings, whose tokenizer it has.
        warnings: sentences for readers about files that say something else than was named.

    Example:
        >>> import demur
        >>> from transformers import GPT2Tokenizer, LlamaConfig, LlamaForCausalLM
        >>> config = LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
        >>> checkpoint = demur.wrap(LlamaForCausalLM(config), GPT2Tokenizer({"<|endoftext|>": 0}, []), name="tiny")
        >>> checkpoint
        Checkpoint('tiny', llama, 2 layers of width 16, torch.float32 on cpu)
    """

    engine: Engine
    fingerprint: str
    name: str = "checkpoint"
    source: str = ""
    adapter: str | None = None
    quantised: str | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        shape = f"{self.engine.family}, {self.n_layers} layers of width {self.d_model}"
        return f"Checkpoint({self.name!r}, {shape}, {self.dtype} on {self.device})"

    def _repr_html_(self) -> str:
        weights = f"{self.dtype} on {self.device}"
        if isinstance(self.engine, TransformersEngine):
            weights = f"{sum(weight.numel() for weight in self.model.parameters()) / 1e6:,.0f}M, {weights}"
        rows = [
            ("source", self.source),
            ("adapter", self.adapter),
            ("family", self.engine.family),
            ("layers, width", f"{self.n_layers}, {self.d_model}"),
            ("weights", weights),
            ("fingerprint", self.fingerprint),
        ]
        return facts_table(f"Checkpoint {self.name}", rows)

    @property
    def model(self) -> PreTrainedModel:
        """The transformers model. Raises `InputError` if another engine runs the weights."""
        return self._transformers("transformers model").model

    @property
    def layout(self) -> Layout:
        """The layout of the model's family. Raises `InputError` if another engine than transformers runs the weights."""
        return self._transformers("layout").layout

    def _transformers(self, what: str) -> TransformersEngine:
        if not isinstance(self.engine, TransformersEngine):
            raise InputError(
                f"checkpoint {self.name!r} is run by the engine {self.engine.name!r} and has no {what}; load it with "
                "engine='transformers'"
            )
        return self.engine

    def engine_for(self, *needs: Need) -> Engine:
        """The engine, if it can do what is needed.

        Args:
            *needs: what it must be able to do besides plain generation.

        Raises:
            InputError: if it cannot, with the reason.
        """
        for need in needs:
            reason = self.engine.cannot(need)
            if need == "branches" and not hasattr(self.engine, "explore"):
                # The method is younger than the others, so an engine may not have it.
                reason = reason or "it has no method explore"
            if reason:
                raise InputError(
                    f"the engine {self.engine.name!r} of checkpoint {self.name!r} cannot {_DOING[need]}: {reason}; load it with "
                    "another engine"
                )
        return self.engine

    @property
    def tokenizer(self) -> Any:
        """The tokenizer, a transformers object."""
        return self.engine.tokenizer

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return self.engine.n_layers

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.engine.d_model

    @property
    def device(self) -> torch.device:
        """The device that token ids have to be on. The weights are on it too, unless they are spread."""
        return self.engine.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the stream, and of the weights that are not quantised."""
        return self.engine.dtype

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Tokens that end a completion: the generation config's and the tokenizer's."""
        return self.engine.stop_ids

    @property
    def embedding_rows(self) -> int | None:
        """The number of rows of the embedding: token ids from this number on cannot be run. None if the engine does not say."""
        found: int | None = getattr(self.engine, "embedding_rows", None)
        return found

    @property
    def pad_id(self) -> int:
        """The token used as padding. Padding is masked, so any token will do."""
        return self.engine.pad_id


class EngineKind(Protocol):
    """A way to load and run checkpoints. Register one as a part of kind `engine`.

    Attributes:
        name: how `demur.load_checkpoint` and messages call it.
    """

    name: ClassVar[str]

    def load(self, request: LoadRequest) -> Checkpoint:
        """A checkpoint whose engine is of this kind.

        Args:
            request: the model and how to load it.

        Raises:
            InputError: if something is missing or unknown, or if this kind cannot do it, with the reason.
        """
        ...


def load_checkpoint(
    model: str | Path,
    *,
    adapter: str | Path | None = None,
    revision: str | None = None,
    dtype: str = "float32",
    quantise: str | None = None,
    device: str = "auto",
    max_memory: MaxMemory | None = None,
    name: str | None = None,
    engine: str = "transformers",
) -> Checkpoint:
    """Load weights and tokenizer from a hub id, a folder or a GGUF file, with a PEFT adapter if given.

    Args:
        model: a hub id (`owner/name` or `owner/name@revision`), a local folder, or a `.gguf` file.
        adapter: a PEFT adapter, a hub id or a folder. It is merged in memory. With quantised weights it stays separate, because
            merging would round them again.
        revision: a revision of the hub id.
        dtype: `float32`, `bfloat16`, `float16` or `float64`.
        quantise: `8bit` or `4bit`, to quantise the linear modules with bitsandbytes.
        device: the name of a device; `auto` for the first GPU, or the CPU if there is none; `spread` for all GPUs, then main
            memory, then the disk.
        max_memory: the most memory that `spread` may use on each device named here.
        name: its name in messages and results; `model` by default.
        engine: the name of the engine that runs it.

    Returns:
        The checkpoint, ready to use.

    Raises:
        InputError: if something is missing or unknown. This is checked before weights are read.
        WorkError: if the proof of the layout's sites fails.

    Example:
        >>> import demur
        >>> checkpoint = demur.load_checkpoint("Qwen/Qwen1.5-0.5B-Chat", dtype="bfloat16")  # doctest: +SKIP
    """
    found: EngineKind = registry("engine").get(engine)
    return found.load(
        LoadRequest(
            model=str(model),
            name=name or str(model),
            adapter=None if adapter is None else str(adapter),
            revision=revision,
            dtype=dtype,
            quantise=quantise,
            device=device,
            max_memory=max_memory,
        )
    )


def wrap(
    model: PreTrainedModel,
    tokenizer: Any,
    *,
    name: str = "checkpoint",
    source: str = "in memory",
    adapter: str | None = None,
    content: str | None = None,
) -> Checkpoint:
    """A checkpoint around a transformers model that is already in memory. Its sites are proved.

    Args:
        model: a transformers causal language model, or a PEFT model around one, whose active adapters then act; it is put into
            evaluation mode.
        tokenizer: its tokenizer.
        name: its name in messages and results.
        source: where the weights came from, for provenance.
        adapter: the adapter that the model has, for provenance; None for the names of a PEFT model's active adapters.
        content: the digest of the files that the weights were read from; every weight in memory is hashed unless given.

    Returns:
        The checkpoint, ready to use. Its `model` is the transformers model, even for a PEFT model.

    Raises:
        InputError: if the model's family has no layout, and for an adapter that acts outside of the transformers model.
        WorkError: if the proof of the layout's sites fails.

    Example:
        >>> import demur
        >>> from transformers import GPT2Tokenizer, LlamaConfig, LlamaForCausalLM
        >>> config = LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
        >>> demur.wrap(LlamaForCausalLM(config), GPT2Tokenizer({"<|endoftext|>": 0}, [])).n_layers
        2
    """
    model, active = unwrapped(model, name)
    model.eval()
    forget(model)
    quantisation.compute_as_asked(model)
    layout = layout_of(model.config)
    prove_sites(model, layout)
    facts = {"dtype": str(weights_dtype(model)), "device": ", ".join(sorted(bytes_by_device(model)))}
    quantised = quantisation.described(model)
    if quantised is not None:
        facts["quantised"] = quantised
    digits = fingerprint(model, content)
    if active is not None:
        # Which adapters are active, and how strongly, is in no weight.
        adapter = adapter or active[0]
        digits = with_fact(digits, active[1])
    return Checkpoint(TransformersEngine(model, tokenizer, layout), digits, name, source, adapter, quantised, facts)
