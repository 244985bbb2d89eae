"""Every key of a GGUF file is applied, known to change nothing, or refused by name."""

from collections.abc import Mapping
from typing import Final

from demur.core.errors import InputError, nearest
from demur.models.gguf.architectures import ARCHITECTURES, Architecture
from demur.models.gguf.metadata import Facts, Value, shown

_APPLIED: Final = (
    "attention.key_length", "attention.value_length", "vocab_size", "rope.dimension_count", "rope.freq_base", "rope.scale_linear",
    "rope.scaling.type", "rope.scaling.factor", "rope.scaling.attn_factor", "rope.scaling.original_context_length",
    "rope.scaling.yarn_ext_factor", "rope.scaling.yarn_attn_factor", "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow",
    "rope.scaling.yarn_log_multiplier",
)  # fmt: skip
"""Keys that `model_config.py` applies for every architecture with rotary positions."""

_DESCRIBES: Final = ("rope.scaling.finetuned", "tensor_data_layout")

_NEUTRAL: Final[Mapping[str, tuple[Value, ...]]] = {
    "attention.causal": (True,),
    "attention.clamp_kqv": (0.0,),
    "attention.key_length_swa": (),
    "attention.max_alibi_bias": (0.0, 8.0),
    "attention.output_scale": (0.0, 1.0),
    "attention.shared_kv_layers": (0,),
    "attention.sliding_window": (0,),
    "attention.temperature_scale": (0.0,),
    "attn_logit_softcapping": (0.0,),
    "embedding_scale": (0.0, 1.0),
    "expert_count": (0,),
    "expert_group_count": (0, 1),
    "expert_group_used_count": (0, 1),
    "expert_shared_count": (0,),
    "expert_used_count": (0,),
    "expert_weights_scale": (0.0, 1.0),
    "final_logit_softcapping": (0.0,),
    "leading_dense_block_count": (0,),
    "logit_scale": (0.0, 1.0),
    "nextn_predict_layers": (0,),
    "pooling_type": (0, 3),
    "residual_scale": (0.0, 1.0),
    "rope.dimension_sections": (),
    "router_logit_softcapping": (0.0,),
    "swin_norm": (False,),
}
"""Keys of which one value changes nothing. Any other value is refused, unless the architecture applies the key."""

_SOFTMAX: Final = 1
"""The number of the gate that turns the experts' scores into weights by a softmax."""


def architecture_of(facts: Facts) -> Architecture:
    """How the file's architecture is converted.

    Raises:
        InputError: for an architecture that demur does not convert.
    """
    found = ARCHITECTURES.get(facts.architecture)
    if found is None:
        known = ", ".join(sorted(ARCHITECTURES))
        raise InputError(
            f"{facts.name} is of the architecture {facts.architecture!r}, and demur converts GGUF files of {known} "
            f"({nearest(facts.architecture, ARCHITECTURES)}); give the checkpoint as a hub id or a folder"
        )
    return found


def require_known_keys(facts: Facts, architecture: Architecture) -> None:
    """Check the keys of the architecture.

    Raises:
        InputError: for a key that nothing applies, and for one whose value would change what is computed.
    """
    applied = {*_APPLIED, *_DESCRIBES, *architecture.attributes, *architecture.keys}
    if not architecture.rotary:
        applied -= {key for key in applied if key.startswith("rope.")}
    for key, value in facts.own.items():
        if key in applied or value in _neutral(key, facts, architecture):
            continue
        raise InputError(
            f"{facts.name} states '{facts.architecture}.{key}' = {shown(value)}, which demur cannot apply, so its numbers "
            "would not be those of this model; give the checkpoint as a hub id or a folder"
        )


def _neutral(key: str, facts: Facts, architecture: Architecture) -> tuple[Value, ...]:
    """The values of a key that change nothing in this file."""
    mixture = "expert_count" in architecture.attributes
    if key == "attention.scale":
        stated = facts.number(key) or 0.0
        return (stated,) if stated == 0.0 or abs(stated * facts.head_width**0.5 - 1.0) < 1e-5 else ()
    if key == "expert_gating_func" and mixture:
        return (_SOFTMAX,)
    if key == "expert_weights_norm" and mixture:
        return (bool(architecture.fixed["norm_topk_prob"]),)
    if key == "attention.sliding_window" and key not in architecture.attributes:
        # A window as long as the longest text is none.
        window = facts.whole(key) or 0
        return (window,) if window >= facts.needed("context_length") else (0,)
    if key == "attention.max_alibi_bias" and facts.architecture != "bloom":
        return (0.0,)
    return _NEUTRAL.get(key, ())
