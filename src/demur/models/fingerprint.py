"""Digests that tell whether two checkpoints have the same weights and the same settings."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import torch
from transformers import PreTrainedModel

from demur.core.same_weights import JOINED
from demur.models.device_placement import fetched
from demur.models.layouts import d_model_of

_NO_SETTINGS = (
    "_name_or_path", "base_model_name_or_path", "dtype", "revision", "torch_dtype", "transformers_version", "use_cache",
)  # fmt: skip


def fingerprint(model: PreTrainedModel, content: str | None = None) -> str:
    """A digest over every byte of a model's weights, and over its architecture.

    Args:
        model: the model.
        content: the digest of the files that it was read from (`file_digests.digest_of_files`). Unless given, every weight in
            memory is hashed.

    Returns:
        Two parts of 16 hex digits, joined by `-`. The first is over names, shapes, dtype and 64 evenly spaced entries of every
        weight in memory; a fine-tune, an adapter or a quantisation changes it. It is all that earlier versions of demur stored.
        The second is over every byte. Equal files at equal dtype give equal digits in any process and on any device.
    """
    return f"{_sampled(model)}{JOINED}{content or _whole(model)}"


def with_fact(digits: str, fact: str) -> str:
    """The fingerprint of weights that act together with something that is in none of them.

    Args:
        digits: the fingerprint of the weights.
        fact: what else acts, such as the active adapters.
    """
    return JOINED.join(hashlib.sha256(f"{part}{fact}".encode()).hexdigest()[:16] for part in digits.split(JOINED))


_PIECE = 64 << 20
"""Entries that are hashed at a time, so that weights on a GPU are copied in pieces."""


def _sampled(model: PreTrainedModel) -> str:
    parts = hashlib.sha256(json.dumps([model.config.model_type, d_model_of(model)]).encode())
    for name, weight in sorted(model.state_dict().items()):
        flat = fetched(model, name, weight).detach().reshape(-1)
        steps = min(64, flat.numel())
        # Integer arithmetic: a float32 linspace overshoots the end of large weights.
        spaced = flat[torch.arange(steps, device=flat.device) * (flat.numel() - 1) // max(1, steps - 1)]
        parts.update(f"{name}{tuple(weight.shape)}{weight.dtype}".encode())
        parts.update(spaced.cpu().double().numpy().tobytes())
    return parts.hexdigest()[:16]


def _whole(model: PreTrainedModel) -> str:
    """16 hex digits over every byte of every weight. Pieces are hashed in parallel, and then their digests."""

    def hashed(named: tuple[str, torch.Tensor]) -> str:
        name, weight = named
        flat = fetched(model, name, weight).detach().reshape(-1)
        parts = hashlib.sha256(f"{name}{tuple(weight.shape)}{weight.dtype}".encode())
        for piece in torch.split(flat, _PIECE):
            # As bytes, because numpy has no bfloat16.
            parts.update(piece.cpu().contiguous().view(torch.uint8).numpy().data)
        return parts.hexdigest()

    weights = sorted(model.state_dict().items())
    # Weights of a spread model are fetched through its modules, one after the other.
    threads = 1 if any(weight.device.type == "meta" for _, weight in weights) else 4
    with ThreadPoolExecutor(threads) as pool:
        return hashlib.sha256("".join(pool.map(hashed, weights)).encode()).hexdigest()[:16]


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
