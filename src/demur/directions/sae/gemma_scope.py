"""Gemma Scope 2: `params.safetensors` with `w_enc`, `b_enc`, `w_dec`, `b_dec`, `threshold`, and `config.json` beside it.

All are JumpReLU autoencoders that do not subtract `b_dec` from their input. Those of the residual stream read the output of a
block: `hf_hook_point_in` is `model.layers.12.output`.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import JsonValue

from demur.core.errors import InputError
from demur.directions.sae.autoencoder_files import needed_config, read_tensors
from demur.directions.sae.sparse_autoencoder import ModulePoint, SparseAutoencoder
from demur.models.layouts import Site

FORMAT, CONFIG = "gemma-scope", "config.json"
TENSORS = ("w_enc", "b_enc", "w_dec", "b_dec", "threshold")

_OUTPUT = re.compile(r"model\.(?:language_model\.)?layers\.(\d{1,4})\.output")
_MODULE = re.compile(r"model\.(?:language_model\.)?layers\.(\d{1,4})\.([a-z_][a-z_0-9.]*)\.(input|output)")


def place_of(facts: Mapping[str, JsonValue]) -> tuple[int, Site] | None:
    """The layer and site at which it reads the stream; None if its config names no such point."""
    found = _OUTPUT.fullmatch(str(facts.get("hf_hook_point_in")))
    return (int(found[1]), "resid_post") if found else None


def read(path: Path) -> SparseAutoencoder:
    """Read one.

    Args:
        path: the file `params.safetensors`.

    Raises:
        InputError: if the config is missing, or names another architecture.
    """
    facts = needed_config(path.with_name(CONFIG))
    if facts.get("architecture") != "jump_relu":
        raise InputError(f"{str(path)!r} has the architecture {facts.get('architecture')!r}; Gemma Scope 2 has 'jump_relu'")
    into, out = facts.get("hf_hook_point_in"), facts.get("hf_hook_point_out") or facts.get("hf_hook_point_in")
    off_stream, modules = "", None
    if facts.get("affine_connection") not in (None, False):
        off_stream = "it has an affine connection, which demur does not compute"
    elif into != out:
        off_stream = f"it is a transcoder, which reads {str(into)!r} and writes {str(out)!r}"
        modules = _modules(into, out)
    elif place_of(facts) is None:
        off_stream = f"it was trained at {str(into)!r}, which is no point of the residual stream"
        modules = _modules(into, out)
    encoder, bias, decoder, decoder_bias, threshold = read_tensors(path, TENSORS).values()
    return SparseAutoencoder(
        path.name,
        FORMAT,
        encoder,
        bias,
        decoder,
        decoder_bias,
        threshold,
        place=place_of(facts),
        off_stream=off_stream,
        modules=modules,
    )


def _modules(into: JsonValue, out: JsonValue) -> tuple[ModulePoint, ModulePoint] | None:
    """The modules whose input or output it reads and reconstructs; None if a name is of another form."""
    found = [_MODULE.fullmatch(str(name)) for name in (into, out)]
    if None in found:
        return None
    points = [ModulePoint(int(one[1]), one[2], "input" if one[3] == "input" else "output") for one in found if one is not None]
    return points[0], points[1]
