"""Digests that tell whether two checkpoints have the same weights and the same settings."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from transformers import PreTrainedModel

from demur.models.device_placement import fetched
from demur.models.layouts import d_model_of

_NO_SETTINGS = (
    "_name_or_path", "base_model_name_or_path", "dtype", "revision", "torch_dtype", "transformers_version", "use_cache",
)  # fmt: skip


def fingerprint(model: PreTrainedModel) -> str:
    """A digest over names, shapes, dtype and 64 evenly spaced entries of every weight, and over the architecture.

    Args:
        model: the model.

    Returns:
        16 hex digits. Equal weights at equal dtype give equal digits in any process and on any device. A fine-tune, an adapter or
        a quantisation changes them.
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
    """A digest over the settings in JSON files, apart from versions and paths.

    Rotary angles, the epsilons of norms and the scaling of an adapter are in these files, not in the weights.

    Args:
        files: config files. A missing file is skipped.

    Returns:
        16 hex digits.
    """
    settings = []
    for file in files:
        with suppress(OSError, ValueError):
            found = json.loads(file.read_text(encoding="utf-8"))
            settings.append(_deciding(found))
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def _deciding(settings: Mapping[str, object]) -> dict[str, object]:
    """The settings that decide about results. Models that also read images have a config inside their config."""
    inner = {
        key: _deciding(value)
        for key, value in settings.items()
        if key.endswith("_config") and key != "quantization_config" and isinstance(value, Mapping)
    }
    return {key: inner.get(key, value) for key, value in settings.items() if key not in _NO_SETTINGS}
