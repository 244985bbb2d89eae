"""What the readers of sparse autoencoders share: tensors and configs from untrusted files.

Several names are in use for the same tensors. A decoder is `W_dec` in files of SAELens, sparsify and Qwen-Scope, and `w_dec` in
those of Gemma Scope 2.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import JsonValue
from safetensors import SafetensorError, safe_open
from torch import Tensor

from demur.core.errors import InputError
from demur.directions.files.untrusted_tensors import checked

DECODERS = ("W_dec", "w_dec")
"""The names of a decoder whose rows are the latents."""

_MOST_BYTES = 1_000_000
"""No config of an autoencoder has so many."""


def tensor_names(path: Path) -> frozenset[str]:
    """The names of the tensors in a safetensors file; none if it is no such file."""
    try:
        with safe_open(path, framework="pt") as file:
            return frozenset(file.keys())
    except (SafetensorError, OSError):
        return frozenset()


def read_tensors(path: Path, names: Sequence[str]) -> dict[str, Tensor]:
    """Whole tensors of a safetensors file, in float32.

    Raises:
        InputError: if one is missing or is not a finite tensor of a floating type.
    """
    there = tensor_names(path)
    missing = next((name for name in names if name not in there), None)
    if missing is not None:
        found = ", ".join(sorted(there)) or "no tensors"
        raise InputError(f"{str(path)!r} has no tensor {missing!r}; it has {found}")
    with safe_open(path, framework="pt") as file:
        return {name: checked(file.get_tensor(name), path, name).float() for name in names}


def read_config(path: Path) -> Mapping[str, JsonValue] | None:
    """The JSON object in a config file; None if there is none."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            return None
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return facts if isinstance(facts, dict) else None


def needed_config(path: Path) -> Mapping[str, JsonValue]:
    """The same for a config that is needed.

    Raises:
        InputError: if there is none.
    """
    found = read_config(path)
    if found is None:
        raise InputError(
            f"there is no {path.name} with a JSON object beside the sparse autoencoder in {str(path.parent)!r}, and its weights "
            "alone do not say how it is computed; put the one it was published with there"
        )
    return found
