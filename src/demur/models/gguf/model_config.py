"""From what a GGUF file states to the transformers config of its model. Each value is checked in the config that comes out."""

import math
from typing import TYPE_CHECKING

from demur.core.errors import InputError
from demur.models.gguf.architectures import Architecture
from demur.models.gguf.metadata import Facts, shown
from demur.models.gguf.rotary_positions import DEFAULT_BASE, Rotary, rotary_positions

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_LARGEST = {"gemma2": 46, "gemma3": 62}
"""Layers of the 27B models, whose attention is scaled by hidden size over heads. No key says so; llama.cpp counts layers too."""
_PERIOD = {"gemma2": 2, "gemma3": 6}
"""Every so many layers, one attends to the whole text and the others to a window."""


def model_config(facts: Facts, architecture: Architecture) -> "PreTrainedConfig":
    """The config of a file's model.

    Raises:
        InputError: if a key is missing, if keys and tensors contradict each other, or if the family cannot compute what they say.
    """
    from transformers import AutoConfig

    wanted = _sizes(facts, architecture) | dict(architecture.fixed) | _shape_of_heads(facts, architecture)
    for attribute, endings in architecture.biases.items():
        wanted[attribute] = any(name.endswith(endings) for name in facts.tensors)
    wanted["vocab_size"] = _vocabulary(facts)
    wanted["tie_word_embeddings"] = "output.weight" not in facts.tensors
    if facts.architecture in _PERIOD:
        wanted |= _gemma(facts)
    elif architecture.rotary:
        rotary = rotary_positions(facts, facts.head_width, partial=architecture.partial)
        wanted["rope_parameters"] = rotary
        if architecture.family == "phi3" and "original_max_position_embeddings" in rotary:
            wanted["original_max_position_embeddings"] = rotary["original_max_position_embeddings"]
    made = AutoConfig.for_model(architecture.family, **wanted)
    _require_taken(facts, made, wanted)
    return made


def _sizes(facts: Facts, architecture: Architecture) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, attribute in architecture.attributes.items():
        if key == "attention.head_count_kv":
            found[attribute] = facts.whole(key) or facts.needed("attention.head_count")
        elif key in architecture.optional and key not in facts.own:
            found[attribute] = architecture.optional[key]
        elif "epsilon" in key or "softcapping" in key:
            found[attribute] = facts.number(key)
            if found[attribute] is None:
                facts.needed(key)
        else:
            found[attribute] = facts.needed(key)
    if found.get("sliding_window") == 0:
        found["sliding_window"] = None
    if "use_parallel_residual" in found:
        found["use_parallel_residual"] = _parallel(facts)
    return found


def _parallel(facts: Facts) -> bool:
    """Whether StableLM's attention and MLP read the same stream: then blocks have no second norm."""
    has_norm = "blk.0.ffn_norm.weight" in facts.tensors
    stated = facts.own.get("use_parallel_residual")
    # Converters wrote this key for models with a second norm too; llama.cpp goes by the tensor.
    if stated is False and not has_norm:
        raise InputError(
            f"{facts.name} states 'stablelm.use_parallel_residual' = False but lacks 'blk.0.ffn_norm.weight'; fetch it again"
        )
    return not has_norm


def _shape_of_heads(facts: Facts, architecture: Architecture) -> dict[str, object]:
    """The width of heads where it is the file's own, and the checks of families in which it is not free.

    Raises:
        InputError: for widths that the family does not have.
    """
    width = facts.head_width
    values = facts.whole("attention.value_length") or width
    whole = facts.needed("embedding_length") // facts.needed("attention.head_count")
    if values != width or (width != whole and not architecture.free_head_width):
        key, value = ("value_length", values) if values != width else ("key_length", width)
        raise InputError(
            f"{facts.name} states '{facts.architecture}.attention.{key}' = {value}, and transformers' {architecture.family} has "
            f"heads of {width if values != width else whole}; give the checkpoint as a hub id or a folder"
        )
    groups = facts.whole("attention.head_count_kv")
    if "attention.head_count_kv" in architecture.keys and groups is not None:
        expected = 1 if architecture.family == "falcon" else facts.needed("attention.head_count")
        if groups != expected:
            raise InputError(
                f"{facts.name} states '{facts.architecture}.attention.head_count_kv' = {groups}, and demur converts files of "
                f"this architecture with {expected} only; give the checkpoint as a hub id or a folder"
            )
    if facts.architecture == "falcon" and groups is None:
        facts.needed("attention.head_count_kv")
    if facts.architecture == "bloom" and facts.whole("feed_forward_length") not in (None, 4 * facts.needed("embedding_length")):
        raise InputError(
            f"{facts.name} states 'bloom.feed_forward_length' = {facts.whole('feed_forward_length')}, and BLOOM's MLP is four "
            f"times as wide as its stream of {facts.needed('embedding_length')}; fetch it again"
        )
    return {"head_dim": width} if architecture.free_head_width else {}


def _vocabulary(facts: Facts) -> int:
    """The rows of the embedding.

    Raises:
        InputError: if there is none, or if `vocab_size` says another number.
    """
    rows = facts.shape("token_embd.weight")
    if len(rows) != 2:
        raise InputError(f"{facts.name} lacks the weight 'token_embd.weight'; fetch it again")
    stated = facts.whole("vocab_size")
    if stated is not None and stated != rows[0]:
        raise InputError(
            f"{facts.name} states '{facts.architecture}.vocab_size' = {stated}, but its embedding has {rows[0]} rows; fetch "
            "it again"
        )
    return rows[0]


def _gemma(facts: Facts) -> dict[str, object]:
    """What Gemma 2 and 3 have beside sizes: which layers see a window only, the scale of attention, and a base for each kind."""
    layers, width = facts.needed("block_count"), facts.head_width
    stated = facts.number("attention.scale")
    if stated:
        scalar: float = stated**-2
    elif layers == _LARGEST[facts.architecture]:
        scalar = facts.needed("embedding_length") / facts.needed("attention.head_count")
    else:
        scalar = width
    if not math.isclose(scalar, round(scalar), rel_tol=1e-5):
        raise InputError(
            f"{facts.name} states '{facts.architecture}.attention.scale' = {stated}, and transformers' {facts.architecture} "
            "needs one over the root of a whole number; give the checkpoint as a hub id or a folder"
        )
    kinds = _layer_kinds(facts, layers)
    rotary = rotary_positions(facts, width, partial=False)
    positions: dict[str, object] = dict(rotary)
    if facts.architecture == "gemma3":
        if rotary["rope_type"] not in ("default", "linear"):
            raise InputError(
                f"{facts.name} scales its rotary positions by {rotary['rope_type']!r}, and Gemma 3 has a linear scaling only; "
                "give the checkpoint as a hub id or a folder"
            )
        # Layers with a window keep a base of their own and are never scaled.
        window: Rotary = {"rope_type": "default", "rope_theta": facts.number("rope.freq_base_swa", DEFAULT_BASE)}
        positions = {"full_attention": rotary, "sliding_attention": window}
    return {
        "query_pre_attn_scalar": round(scalar),
        "layer_types": ["sliding_attention" if one else "full_attention" for one in kinds],
        "rope_parameters": positions,
    }


def _layer_kinds(facts: Facts, layers: int) -> list[bool]:
    """For each layer, whether it sees a window only."""
    stated = facts.own.get("attention.sliding_window_pattern", _PERIOD[facts.architecture])
    if isinstance(stated, int) and not isinstance(stated, bool) and stated > 0:
        return [bool((layer + 1) % stated) for layer in range(layers)]
    if isinstance(stated, list | tuple) and len(stated) == layers:
        return [bool(one) for one in stated]
    raise InputError(
        f"{facts.name} states '{facts.architecture}.attention.sliding_window_pattern' = {shown(stated)}; a number of layers, "
        f"or one value for each of the {layers} layers, is expected"
    )


def _require_taken(facts: Facts, made: "PreTrainedConfig", wanted: dict[str, object]) -> None:
    """Check that the config holds each value. Config classes drop names that they do not know, and derive some values anew."""
    for attribute, value in wanted.items():
        got = getattr(made, attribute, None)
        if not _holds(got, value):
            raise InputError(
                f"the config that transformers makes of {facts.name} has {attribute} = {shown(got)}, but the file says "
                f"{shown(value)}; give the checkpoint as a hub id or a folder"
            )


def _holds(got: object, wanted: object) -> bool:
    if isinstance(got, dict) and isinstance(wanted, dict):
        return all(_holds(got.get(key), value) for key, value in wanted.items())
    return got == wanted
