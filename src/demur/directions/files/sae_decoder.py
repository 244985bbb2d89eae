"""One feature of a sparse autoencoder (SAE) as a direction: its row of the decoder, in a safetensors file.

SAELens (`sae_weights.safetensors`) and EleutherAI's sparsify (`sae.safetensors`) store the decoder as `W_dec`, (feature,
d_model). SAELens writes the point of the stream beside it, in `cfg.json`: `hook_name`, such as `blocks.12.hook_resid_post`. Only
the one row is read, because a decoder may have millions.
"""

import json
import re
from pathlib import Path
from typing import cast

from safetensors import SafetensorError, safe_open

from demur.core.errors import InputError
from demur.directions.direction import Direction, from_raw
from demur.directions.files.untrusted_tensors import checked
from demur.directions.provenance import Provenance
from demur.models.layouts import Site

DECODER = "W_dec"
CONFIG = "cfg.json"

_MOST_BYTES = 1_000_000
"""No `cfg.json` of an SAE has so many."""

_POINT = re.compile(r"blocks\.(\d{1,4})\.hook_(resid_pre|resid_mid|resid_post)")


def has_decoder(path: Path) -> bool:
    """Whether a safetensors file holds the decoder of a sparse autoencoder."""
    try:
        with safe_open(path, framework="pt") as file:
            return DECODER in file.keys()  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError):
        return False


def read(path: Path, feature: int) -> Direction:
    """The direction that a feature writes to the stream.

    Args:
        path: the safetensors file.
        feature: the number of the feature, from 0.

    Returns:
        The unit vector. Its raw norm is unknown, because the decoder does not say how strongly the feature is active.

    Raises:
        InputError: for a file without a decoder, a feature that it does not have, and a row of zeros.
    """
    try:
        with safe_open(path, framework="pt") as file:
            if DECODER not in file.keys():  # noqa: SIM118 - not a dict
                found = ", ".join(file.keys()) or "nothing"
                raise InputError(
                    f"{str(path)!r} holds {found}, not the tensor {DECODER!r} of a sparse autoencoder; leave feature out"
                )
            decoder = file.get_slice(DECODER)
            shape = decoder.get_shape()
            if len(shape) != 2:
                raise InputError(f"{str(path)!r}: {DECODER!r} has the shape {tuple(shape)}; expected (feature, d_model)")
            if not 0 <= feature < shape[0]:
                raise InputError(f"{str(path)!r} has no feature {feature}; its decoder has 0 to {shape[0] - 1}")
            row = decoder[feature : feature + 1][0].clone()
    except (SafetensorError, OSError) as error:
        raise InputError(f"{str(path)!r} is not a safetensors file: {error}") from error
    vector = checked(row, path, f"feature {feature}")
    if not vector.any():
        raise InputError(f"{str(path)!r}: feature {feature} has a decoder row of zeros, which is no direction; name another one")
    place = _place(path.with_name(CONFIG))
    unsaid = ("position", "raw norm") if place else ("layer", "site", "position", "raw norm")
    facts = Provenance(
        method=f"decoder row of feature {feature} of a sparse autoencoder",
        file=path.name,
        format="sae",
        stored_dtype=str(vector.dtype),
        not_in_the_file=unsaid,
    )
    layer, site = place or (0, "resid_pre")
    return from_raw(vector, name=f"{path.stem}.feature{feature}", layer=layer, site=site, provenance=facts)


def _place(config: Path) -> tuple[int, Site] | None:
    """The layer and site at which the autoencoder reads the stream; None if its `cfg.json` is missing or names no such point."""
    try:
        if config.stat().st_size > _MOST_BYTES:
            return None
        facts = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(facts, dict):
        return None
    inner = facts.get("metadata")  # newer versions of SAELens
    for table in (facts, inner if isinstance(inner, dict) else {}):
        found = _POINT.fullmatch(str(table.get("hook_name")))
        if found:
            return int(found[1]), cast(Site, found[2])
    return None
