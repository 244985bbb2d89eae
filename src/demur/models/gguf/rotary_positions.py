"""The rotary positions that a GGUF file states: their base, how many dimensions turn, and how they are scaled.

The keys and their defaults are those of llama.cpp (`src/llama-model.cpp`, `load_hparams`; `gguf-py/gguf/constants.py`), the
result is the `rope_parameters` of a transformers config (`modeling_rope_utils.py` of 5.23).
"""

import math

from demur.core.errors import InputError
from demur.models.gguf.metadata import Facts, shown

Rotary = dict[str, object]

_TYPES = ("none", "linear", "yarn", "longrope")
DEFAULT_BASE = 10000.0
"""The base where a file states none."""


def rotary_positions(facts: Facts, head_width: int, *, partial: bool) -> Rotary:
    """The `rope_parameters` of a file.

    Args:
        facts: the file.
        head_width: the width of one attention head.
        partial: whether transformers' code of this family can turn a part of a head only.

    Raises:
        InputError: if a scaling cannot be expressed, or if keys and tensors contradict each other.
    """
    found: Rotary = {"rope_type": "default", "rope_theta": facts.number("rope.freq_base", DEFAULT_BASE)}
    turning = facts.whole("rope.dimension_count") or head_width
    if turning != head_width:
        if not partial or turning > head_width:
            raise InputError(_cannot(facts, "rope.dimension_count", turning, f"heads are {head_width} wide"))
        found["partial_rotary_factor"] = turning / head_width
    return found | _scaling(facts, turning)


def scaling_type(facts: Facts) -> str:
    """The type of scaling; a factor without a type is a linear scaling, as in llama.cpp.

    Raises:
        InputError: for a type that is not known.
    """
    stated = facts.own.get("rope.scaling.type")
    kind = str(stated) if stated is not None else ("longrope" if _longrope_tensors(facts) else "linear")
    if kind not in _TYPES:
        raise InputError(_cannot(facts, "rope.scaling.type", kind, f"known are {', '.join(_TYPES)}"))
    return kind


def scaling_factor(facts: Facts) -> float:
    """By how much positions are divided; 1 for not at all. Older files have another name for it."""
    return float(facts.number("rope.scaling.factor") or facts.number("rope.scale_linear") or 1.0)


def _scaling(facts: Facts, turning: int) -> Rotary:
    kind, factor, divisors = scaling_type(facts), scaling_factor(facts), _factors(facts, "rope_freqs.weight", turning)
    if kind == "none":
        factor = 1.0
    if kind not in ("yarn", "longrope"):
        _require_neutral(facts, "rope.scaling.attn_factor", 1.0)
    if kind != "yarn":
        _require_neutral(facts, "rope.scaling.yarn_ext_factor", 0.0, -1.0)
        _require_neutral(facts, "rope.scaling.yarn_attn_factor", 1.0)
        _require_neutral(facts, "rope.scaling.yarn_log_multiplier", 0.0)
    if _longrope_tensors(facts) and kind != "longrope":
        raise InputError(_cannot(facts, "rope.scaling.type", kind, "the file also holds rope_factors tensors"))
    if kind in ("yarn", "longrope"):
        if divisors is not None:
            raise InputError(_cannot(facts, "rope.scaling.type", kind, "the file also holds the tensor 'rope_freqs.weight'"))
        return _yarn(facts, factor) if kind == "yarn" else _longrope(facts, turning)
    if divisors is not None:
        # The tensor is a divisor for each frequency. transformers' longrope divides by such numbers; here they are the same for
        # short and long texts, and nothing else is scaled.
        each = [one * factor for one in divisors]
        length = facts.needed("context_length")
        return {
            "rope_type": "longrope", "short_factor": each, "long_factor": each, "factor": 1.0, "attention_factor": 1.0,
            "original_max_position_embeddings": length,
        }  # fmt: skip
    return {"rope_type": "linear", "factor": factor} if factor != 1.0 else {}


def _yarn(facts: Facts, factor: float) -> Rotary:
    _require_neutral(facts, "rope.scaling.yarn_ext_factor", 1.0, -1.0)
    _require_neutral(facts, "rope.scaling.yarn_log_multiplier", 0.0)
    extra = (facts.number("rope.scaling.attn_factor", 1.0) or 1.0) * (facts.number("rope.scaling.yarn_attn_factor", 1.0) or 1.0)
    found: Rotary = {
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": facts.whole("rope.scaling.original_context_length") or facts.needed("context_length"),
        "beta_fast": facts.number("rope.scaling.yarn_beta_fast", 32.0),
        "beta_slow": facts.number("rope.scaling.yarn_beta_slow", 1.0),
    }
    # llama.cpp multiplies by the published 0.1 ln(factor) + 1 in any case, and by a stated number on top of it.
    return found if extra == 1.0 else found | {"attention_factor": extra * (0.1 * math.log(factor) + 1.0)}


def _longrope(facts: Facts, turning: int) -> Rotary:
    short, long = (_factors(facts, f"rope_factors_{which}.weight", turning) for which in ("short", "long"))
    original = facts.whole("rope.scaling.original_context_length")
    if short is None or long is None or original is None:
        lacking = (
            "the key 'rope.scaling.original_context_length'" if original is None else "the tensors rope_factors_short and _long"
        )
        raise InputError(_cannot(facts, "rope.scaling.type", "longrope", f"the file lacks {lacking}"))
    return {
        "rope_type": "longrope", "short_factor": short, "long_factor": long, "original_max_position_embeddings": original,
        "factor": facts.needed("context_length") / original,
        "attention_factor": facts.number("rope.scaling.attn_factor", 1.0),
    }  # fmt: skip


def _longrope_tensors(facts: Facts) -> bool:
    return any(f"rope_factors_{which}.weight" in facts.tensors for which in ("short", "long"))


def _factors(facts: Facts, name: str, turning: int) -> list[float] | None:
    from gguf import dequantize

    found = facts.tensors.get(name)
    if found is None:
        return None
    values = [float(one) for one in dequantize(found.data, found.tensor_type).reshape(-1)]
    if len(values) != turning // 2:
        raise InputError(
            f"{facts.name} holds {name!r} with {len(values)} numbers; {turning // 2} are expected, one for each frequency"
        )
    return values


def _require_neutral(facts: Facts, key: str, *neutral: float) -> None:
    value = facts.number(key)
    if value is not None and value not in neutral:
        raise InputError(_cannot(facts, key, value, "it cannot be applied together with the file's type of scaling"))


def _cannot(facts: Facts, key: str, value: object, why: str) -> str:
    return (
        f"{facts.name} states '{facts.architecture}.{key}' = {shown(value)}, and {why}, so demur cannot compute this model as "
        "it was written; give the checkpoint as a hub id or a folder"
    )
