"""Checkpoints in memory: load, prove, fingerprint, free.

A loaded checkpoint is in evaluation mode, with any adapter merged in memory, or beside weights that are quantised; its layout has
been proved by a tiny forward pass. Nothing is downloaded that is already here, and no remote code runs.
"""

import gc
import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from demur.core.errors import InputError, nearest
from demur.core.html_repr import facts_table
from demur.engine.prepacked_weights import forget
from demur.engine.site_proof import prove_sites
from demur.models import quantisation
from demur.models.device_placement import MaxMemory, bytes_by_device, fetched, find_device, input_device, weights_dtype
from demur.models.families import layout_of
from demur.models.layouts import Layout, d_model_of
from demur.models.load_weights import Wanted, load
from demur.models.sources import at_hand, find_adapter, find_model
from demur.models.third_party_logs import quiet_transformers

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """One set of weights, ready to use. `model` and `tokenizer` are the transformers objects.

    `fingerprint` is equal for equal weights at equal dtype in any process. `source` says where the weights came from,
    `quantised` how they were quantised, None where they were not.
    """

    model: PreTrainedModel
    tokenizer: Any
    layout: Layout
    fingerprint: str
    name: str = "checkpoint"
    source: str = ""
    adapter: str | None = None
    quantised: str | None = None
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
        """Where token ids go; the weights are there too, unless they are spread."""
        return input_device(self.model)

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the stream, and of the weights that are not quantised."""
        return weights_dtype(self.model)

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
    model: str | Path,
    *,
    adapter: str | Path | None = None,
    revision: str | None = None,
    dtype: str = "float32",
    quantise: str | None = None,
    device: str = "auto",
    max_memory: MaxMemory | None = None,
    name: str | None = None,
) -> Checkpoint:
    """Load weights and tokenizer from a hub id, a folder or a GGUF file, with a PEFT adapter where given.

    `quantise` of `8bit` or `4bit` quantises the linear maps by bitsandbytes. `device` of `auto` is the first GPU, else the
    processor; `spread` is all GPUs, then main memory, then the disk, each up to `max_memory` where it is named there. An adapter
    is merged in memory, and stays beside weights that are quantised, which cannot take it without rounding again. Raises
    `InputError` for anything that is missing or unknown, before weights are read, and `WorkError` where the layout's sites are
    not what they claim to be.
    """
    model, adapter = str(model), None if adapter is None else str(adapter)
    source = find_model(model, revision)
    adapter_folder = None if adapter is None else find_adapter(adapter)
    wanted = Wanted(_dtype(dtype), quantise, find_device(device), max_memory)
    quantisation.check(quantise)
    source = at_hand(source)
    with quiet_transformers():
        loaded, tokenizer = load(model, source, adapter, adapter_folder, wanted)
    made = wrap(loaded, tokenizer, name=name or model, source=source.describe(), adapter=adapter)
    commit = {} if source.revision is None else {"revision": source.revision}
    files = [folder / name for folder, name in ((source.path, "config.json"), (adapter_folder, "adapter_config.json")) if folder]
    return replace(made, facts={**made.facts, **commit, "settings": settings_digest(files)})


def wrap(
    model: PreTrainedModel,
    tokenizer: Any,
    *,
    name: str = "checkpoint",
    source: str = "in memory",
    adapter: str | None = None,
) -> Checkpoint:
    """A checkpoint around a transformers model that is already in memory; its sites are proved."""
    model.eval()
    forget(model)
    quantisation.compute_as_asked(model)
    layout = layout_of(model.config)
    prove_sites(model, layout)
    facts = {"dtype": str(weights_dtype(model)), "device": ", ".join(sorted(bytes_by_device(model)))}
    quantised = quantisation.described(model)
    if quantised is not None:
        facts["quantised"] = quantised
    return Checkpoint(model, tokenizer, layout, fingerprint(model), name, source, adapter, quantised, facts)


def fingerprint(model: PreTrainedModel) -> str:
    """16 hex digits over names, shapes, dtype and 64 evenly spaced entries of every weight, and the architecture.

    Equal weights at equal dtype give equal digits in any process and on any device; a fine-tune, an adapter or quantising changes
    them.
    """
    parts = hashlib.sha256(json.dumps([model.config.model_type, d_model_of(model)]).encode())
    for name, weight in sorted(model.state_dict().items()):
        flat = fetched(model, name, weight).detach().reshape(-1)
        steps = min(64, flat.numel())
        # Integer arithmetic: a float32 linspace overshoots the end of large weights.
        spaced = flat[torch.arange(steps, device=flat.device) * (flat.numel() - 1) // max(1, steps - 1)]
        parts.update(f"{name}{tuple(weight.shape)}{weight.dtype}".encode())
        parts.update(spaced.cpu().double().numpy().tobytes())
    return parts.hexdigest()[:16]


def settings_digest(files: Sequence[Path]) -> str:
    """16 hex digits over what JSON files say beside the weights, apart from versions and paths; a missing file says nothing.

    Rotary angles, norms' epsilons and an adapter's scaling stand there and in no weight.
    """
    said = []
    for file in files:
        with suppress(OSError, ValueError):
            found = json.loads(file.read_text(encoding="utf-8"))
            said.append({key: value for key, value in found.items() if key not in _NO_SETTINGS})
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


_NO_SETTINGS = (
    "_name_or_path", "base_model_name_or_path", "dtype", "revision", "torch_dtype", "transformers_version", "use_cache",
)  # fmt: skip


def free_memory() -> None:
    """Give memory of dropped checkpoints back, on the processor and on a GPU."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _dtype(name: str) -> torch.dtype:
    if name in quantisation.BYTES:
        raise InputError(f"{name!r} is not a dtype of weights but a quantisation of them; ask for it with quantise={name!r}")
    if name not in DTYPES:
        raise InputError(f"{name!r} is not a dtype of weights; {nearest(name, DTYPES)}")
    return DTYPES[name]
