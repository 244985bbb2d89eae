"""Qwen-Scope: `layer12.sae.pt`, a dict of `W_enc` (latent, d_model), `W_dec` (d_model, latent), `b_enc` and `b_dec`.

All are TopK autoencoders of the output of a block. The file does not say k; the name of its folder ends in it, as in
`SAE-Res-Qwen3-1.7B-Base-W32K-L0_50`. Nothing is subtracted from the input.
"""

import re
from pathlib import Path

from torch import Tensor

from demur.core.errors import InputError
from demur.directions.files.untrusted_tensors import checked, read_pt
from demur.directions.sae.sparse_autoencoder import SparseAutoencoder
from demur.models.layouts import Site

FORMAT, ENDING = "qwen-scope", ".sae.pt"
TENSORS = ("W_enc", "b_enc", "W_dec", "b_dec")

_LAYER = re.compile(r"layer(\d{1,4})\.sae\.pt")
_K = re.compile(r"L0_(\d{1,6})(?!\d)")


def place_of(path: Path) -> tuple[int, Site] | None:
    """The layer and site at which it reads the stream; None if its name does not say."""
    found = _LAYER.fullmatch(path.name)
    return (int(found[1]), "resid_post") if found else None


def tensors(path: Path) -> dict[str, Tensor]:
    """Its tensors, in float32, with the decoder as (latent, d_model) and the encoder as (d_model, latent).

    Raises:
        InputError: if the file is not of this format.
    """
    loaded = read_pt(path)
    missing = next((name for name in TENSORS if not isinstance(loaded, dict) or name not in loaded), None)
    if missing is not None:
        raise InputError(f"{str(path)!r} has no tensor {missing!r}; a file of Qwen-Scope is a dict of {', '.join(TENSORS)}")
    found = {name: checked(loaded[name], path, name).float() for name in TENSORS}
    return {**found, **{name: found[name].movedim(0, -1).contiguous() for name in ("W_enc", "W_dec")}}


def read(path: Path, k: int | None = None) -> SparseAutoencoder:
    """Read one.

    Args:
        path: the file.
        k: how many latents are active at a token; read from the path unless given.

    Raises:
        InputError: if k is not given and not in the path, or contradicts it.
    """
    said = _K.findall(str(path.absolute()))
    if k is None and not said:
        raise InputError(
            f"the path {str(path)!r} has no L0_ with a number, so it does not say how many latents are active at a token; give k"
        )
    if k is not None and said and int(said[-1]) != k:
        raise InputError(f"the path {str(path)!r} says L0_{said[-1]}, but k is given as {k}; leave k out")
    found = tensors(path)
    return SparseAutoencoder(
        path.name,
        FORMAT,
        found["W_enc"],
        found["b_enc"],
        found["W_dec"],
        found["b_dec"],
        k=int(said[-1]) if k is None else k,
        place=place_of(path),
    )
