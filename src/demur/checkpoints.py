"""Checkpoints in memory: load, prove, fingerprint, free.

A loaded checkpoint is in evaluation mode, on one device, with any adapter merged in memory; its layout has been proved by a tiny
forward pass. Nothing is downloaded that is already here, and no remote code runs.
"""

import gc
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from demur import gguf
from demur.devices import find_device
from demur.errors import InputError, WorkError, nearest
from demur.families import layout_of
from demur.layouts import Layout, d_model_of
from demur.notebook import facts_table
from demur.quiet import quiet_transformers
from demur.selfcheck import prove_sites
from demur.sources import Source, fetch, find_adapter, find_model

_BROKEN_ADAPTER = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError, UnpicklingError)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """One set of weights, ready to use. `model` and `tokenizer` are the transformers objects.

    `fingerprint` is equal for equal weights at equal dtype in any process. `source` says where the weights came from.
    """

    model: PreTrainedModel
    tokenizer: Any
    layout: Layout
    fingerprint: str
    name: str = "checkpoint"
    source: str = ""
    adapter: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        shape = f"{self.layout.family}, {self.n_layers} layers of width {self.d_model}"
        return f"Checkpoint({self.name!r}, {shape}, {self.dtype} on {self.device})"

    def _repr_html_(self) -> str:
        rows = [
            ("source", self.source),
            ("adapter", self.adapter),
            ("family", self.layout.family),
            ("layers, width", f"{self.n_layers}, {self.d_model}"),
            (
                "weights",
                f"{sum(weight.numel() for weight in self.model.parameters()) / 1e6:,.0f}M, {self.dtype} on {self.device}",
            ),
            ("fingerprint", self.fingerprint),
        ]
        return facts_table(f"Checkpoint {self.name}", rows)

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return len(self.layout.find_blocks(self.model))

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return d_model_of(self.model)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        dtype: torch.dtype = next(self.model.parameters()).dtype
        return dtype

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Tokens that end a completion: the generation config's and the tokenizer's."""
        configured = self.model.generation_config.eos_token_id if self.model.generation_config is not None else None
        found = configured if isinstance(configured, list) else [configured]
        return tuple(sorted({int(i) for i in (*found, self.tokenizer.eos_token_id) if i is not None}))

    @property
    def pad_id(self) -> int:
        """A token to pad with. Pads are masked, so which one it is changes nothing."""
        return int(self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else (self.stop_ids or (0,))[0])


def load_checkpoint(
    model: str,
    *,
    adapter: str | None = None,
    revision: str | None = None,
    dtype: str = "float32",
    device: str = "auto",
    name: str | None = None,
) -> Checkpoint:
    """Load weights and tokenizer from a hub id, a folder or a GGUF file, with a PEFT adapter merged in memory where given.

    `device` of `auto` is the first GPU, else the processor. Raises `InputError` for anything that is missing or unknown, before
    weights are read, and `WorkError` where the layout's sites are not what they claim to be.
    """
    source = find_model(model, revision)
    adapter_folder = None if adapter is None else find_adapter(adapter)
    torch_dtype, torch_device = _dtype(dtype), find_device(device)
    with quiet_transformers():
        loaded, tokenizer = _load(model, source, adapter, adapter_folder, torch_dtype)
    return wrap(loaded.to(torch_device), tokenizer, name=name or model, source=source.describe(), adapter=adapter, origin=source)


def _load(
    model: str, source: Source, adapter: str | None, adapter_folder: Path | None, dtype: torch.dtype
) -> tuple[PreTrainedModel, Any]:
    folder = gguf.convert(fetch(source)) if source.kind == "gguf" else fetch(source)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # tokenizers raises plain Exceptions for a file that is not its own
        raise InputError(f"the tokenizer of {model!r} cannot be loaded by transformers: {_first_line(error)}") from error
    try:
        # Never code from a checkpoint, and of a .bin file never more than tensors.
        auto = auto_class(AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False))
        loaded = auto.from_pretrained(folder, dtype=dtype, local_files_only=True, trust_remote_code=False, weights_only=True)
    except (OSError, ValueError, KeyError, ImportError, SafetensorError, UnpicklingError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise WorkError(f"the weights of {model!r} do not fit into memory; use dtype bfloat16 or a larger machine") from error
        raise InputError(f"the weights of {model!r} cannot be loaded by transformers: {_first_line(error)}") from error
    if adapter_folder is not None:
        from peft import PeftModel

        try:
            loaded = PeftModel.from_pretrained(loaded, str(adapter_folder)).merge_and_unload()
        except _BROKEN_ADAPTER as error:
            raise InputError(f"adapter {adapter!r} does not fit {model!r}: {_first_line(error)}") from error
    return loaded, tokenizer


def auto_class(config: Any) -> Any:
    """The class that loads a config's weights: a model that also sees is not among the causal language models."""
    sees = config.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    return AutoModelForImageTextToText if sees else AutoModelForCausalLM


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def wrap(
    model: PreTrainedModel,
    tokenizer: Any,
    *,
    name: str = "checkpoint",
    source: str = "in memory",
    adapter: str | None = None,
    origin: Source | None = None,
) -> Checkpoint:
    """A checkpoint around a transformers model that is already in memory; its sites are proved."""
    model.eval()
    layout = layout_of(model.config)
    prove_sites(model, layout)
    facts = {"dtype": str(next(model.parameters()).dtype), "device": str(next(model.parameters()).device)}
    if origin is not None and origin.revision is not None:
        facts["revision"] = origin.revision
    return Checkpoint(model, tokenizer, layout, fingerprint(model), name, source, adapter, facts)


def fingerprint(model: PreTrainedModel) -> str:
    """16 hex digits over names, shapes, dtype and 64 evenly spaced entries of every weight, and the architecture.

    Equal weights at equal dtype give equal digits in any process; a fine-tune or an adapter changes them.
    """
    parts = hashlib.sha256(json.dumps([model.config.model_type, d_model_of(model)]).encode())
    for name, weight in sorted(model.state_dict().items()):
        flat = weight.detach().reshape(-1)
        steps = min(64, flat.numel())
        # Integer arithmetic: a float32 linspace overshoots the end of large weights.
        spaced = flat[torch.arange(steps, device=flat.device) * (flat.numel() - 1) // max(1, steps - 1)]
        parts.update(f"{name}{tuple(weight.shape)}{weight.dtype}".encode())
        parts.update(spaced.cpu().double().numpy().tobytes())
    return parts.hexdigest()[:16]


def free_memory() -> None:
    """Give memory of dropped checkpoints back, on the processor and on a GPU."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _dtype(name: str) -> torch.dtype:
    if name not in DTYPES:
        raise InputError(f"{name!r} is not a dtype of weights; {nearest(name, DTYPES)}")
    return DTYPES[name]
