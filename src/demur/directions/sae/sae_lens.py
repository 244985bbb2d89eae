"""Sparse autoencoders as SAELens saves them: a safetensors file with `W_enc` and `W_dec`, and `cfg.json` beside it.

Known architectures are `standard`, `jumprelu` and `topk`. A config with anything else that changes what is computed is refused,
because a latent that is computed in another way than it was trained is another latent.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from pydantic import JsonValue

from demur.core.errors import InputError
from demur.directions.files.untrusted_tensors import whole_number
from demur.directions.sae.autoencoder_files import needed_config, read_tensors, tensor_names
from demur.directions.sae.sparse_autoencoder import SparseAutoencoder
from demur.models.layouts import Site

FORMAT, CONFIG = "sae-lens", "cfg.json"
TENSORS = ("W_enc", "b_enc", "W_dec", "b_dec")

_POINT = re.compile(r"blocks\.(\d{1,4})\.hook_(resid_pre|resid_mid|resid_post)")
_UNCHANGED: Mapping[str, tuple[JsonValue, ...]] = {
    "normalize_activations": (None, "none"),
    "reshape_activations": (None, "none"),
    "finetuning_scaling_factor": (None, False),
    "rescale_acts_by_decoder_norm": (None, False),
    "hook_head_index": (None,),
}
"""Keys of a config with the values at which they change nothing."""


def place_of(facts: Mapping[str, JsonValue]) -> tuple[int, Site] | None:
    """The layer and site at which it reads the stream; None if its config names no such point."""
    found = _POINT.fullmatch(str(_said(facts, "hook_name")))
    return (int(found[1]), cast(Site, found[2])) if found else None


def read(path: Path) -> SparseAutoencoder:
    """Read one.

    Args:
        path: the safetensors file.

    Raises:
        InputError: if the config is missing, or says something that is not understood.
    """
    facts = needed_config(path.with_name(CONFIG))
    kind = _architecture(facts, path)
    off_stream = ""
    if "transcoder" in kind:
        off_stream = "it is a transcoder, which reads the input of an MLP and writes its output"
    elif place_of(facts) is None and _said(facts, "hook_name") is not None:
        off_stream = f"it was trained at {str(_said(facts, 'hook_name'))!r}, which is no point of the residual stream"
    thresholds = kind == "jumprelu"
    if not off_stream:
        _refuse_unknown(facts, path, {*TENSORS, *(("threshold",) if thresholds else ())})
    tensors = read_tensors(path, (*TENSORS, *(("threshold",) if thresholds else ())))
    return SparseAutoencoder(
        path.name,
        FORMAT,
        tensors["W_enc"],
        tensors["b_enc"],
        tensors["W_dec"],
        tensors["b_dec"],
        tensors.get("threshold"),
        _k(facts, path) if kind == "topk" else None,
        _said(facts, "apply_b_dec_to_input") is True,
        place_of(facts),
        off_stream,
    )


def _said(facts: Mapping[str, JsonValue], key: str) -> JsonValue:
    """The value of a key, which newer versions of SAELens write into `metadata`."""
    inner = facts.get("metadata")
    return facts[key] if key in facts else inner.get(key) if isinstance(inner, dict) else None


def _architecture(facts: Mapping[str, JsonValue], path: Path) -> str:
    """The architecture; older versions of SAELens name only the activation function of some."""
    kind, function = facts.get("architecture", "standard"), facts.get("activation_fn_str", facts.get("activation_fn", "relu"))
    if kind == "standard" and function == "topk":
        kind = "topk"
    elif function not in ("relu", "topk"):
        raise InputError(f"{str(path)!r} has the activation function {function!r}; demur computes relu and topk")
    if kind not in ("standard", "jumprelu", "topk") and "transcoder" not in str(kind):
        raise InputError(f"{str(path)!r} has the architecture {kind!r}; demur computes standard, jumprelu and topk")
    return str(kind)


def _refuse_unknown(facts: Mapping[str, JsonValue], path: Path, known: set[str]) -> None:
    """Raises `InputError` for what would change the latents in a way that is not computed here."""
    for key, values in _UNCHANGED.items():
        if _said(facts, key) not in values:
            raise InputError(
                f"{str(path)!r} has {key} = {_said(facts, key)!r} in its {CONFIG}, which demur does not compute; save it with "
                "this folded into its weights"
            )
    if not isinstance(_said(facts, "apply_b_dec_to_input"), bool):
        raise InputError(f"the {CONFIG} of {str(path)!r} does not say whether apply_b_dec_to_input is true; add it")
    other = next(iter(sorted(tensor_names(path) - known)), None)
    if other is not None:
        raise InputError(f"{str(path)!r} has a tensor {other!r}, which this architecture does not have; demur cannot compute it")


def _k(facts: Mapping[str, JsonValue], path: Path) -> int:
    arguments = facts.get("activation_fn_kwargs")
    found = facts.get("k", arguments.get("k") if isinstance(arguments, dict) else None)
    if not whole_number(found):
        raise InputError(
            f"the {CONFIG} of {str(path)!r} does not say k, the number of active latents of a TopK autoencoder; add it"
        )
    return found
