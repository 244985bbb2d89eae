"""The architecture families that demur knows: where their blocks are, and which module's output each branch adds to the stream.

The layouts follow the modelling code of transformers 5.23 (`models/<family>/modeling_<family>.py`); the key is the config's
`model_type`. Where a config decides what a block does, the layout is a function of the config. A config whose blocks do not add
to a residual stream is refused. So is a family that is not registered, with a sentence that says how to add it.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import takewhile
from typing import Any

from transformers.models.auto.auto_mappings import CONFIG_MAPPING_NAMES

from demur.core.errors import InputError, nearest
from demur.models.layouts import Layout

Rule = Callable[[Any], Layout]

# Attention and MLP each read a norm of the stream and add to it, one after the other.
_PRE_NORM = (
    "gemma", "gpt_oss", "llama", "mistral", "mixtral", "olmo", "phi3", "qwen2", "qwen2_5_vl_text", "qwen2_moe", "qwen2_vl_text",
    "qwen3", "qwen3_moe", "qwen3_vl_text", "smollm3", "starcoder2",
)  # fmt: skip
# There is a norm between each branch and the stream, so the norm's output is added.
_POST_NORM = {
    "gemma2": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "gemma3_text": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "glm4": ("post_self_attn_layernorm", "post_mlp_layernorm"),
    "olmo2": ("post_attention_layernorm", "post_feedforward_layernorm"),
}
# Both branches read the same stream.
_PARALLEL = {
    "cohere": ("model.layers", "self_attn", "mlp"),
    "cohere2": ("model.layers", "self_attn", "mlp"),
    "gptj": ("transformer.h", "attn", "mlp"),
    "phi": ("model.layers", "self_attn", "mlp"),
}
# The branches run one after the other, but the paths have other names.
_OTHER_NAMES = {
    "gpt2": ("transformer.h", "attn", "mlp"),
    "gpt_neo": ("transformer.h", "attn", "mlp"),
}
# The path of the language model inside a model that also reads images.
_TOWERS = {
    "aya_vision": "model.language_model",
    "gemma3": "model.language_model",
    "idefics3": "model.text_model",
    "internvl": "model.language_model",
    "llava": "model.language_model",
    "llava_next": "model.language_model",
    "llava_onevision": "model.language_model",
    "mistral3": "model.language_model",
    "mllama": "model.language_model",
    "qwen2_5_vl": "model.language_model",
    "qwen2_vl": "model.language_model",
    "qwen3_vl": "model.language_model",
    "smolvlm": "model.text_model",
    "vipllava": "model.language_model",
}


def _bloom(config: Any) -> Layout:
    if config.apply_residual_connection_post_layernorm:
        raise InputError(
            "this BLOOM checkpoint adds its branches to the normalised stream (apply_residual_connection_post_layernorm=True), "
            "so it has no residual stream to edit; use a checkpoint without that setting, as the published ones are"
        )
    if config.pretraining_tp > 1 and config.slow_but_exact:
        raise InputError(
            "this BLOOM config cuts its linear maps in slices (slow_but_exact=True), so no module has what a branch adds as its "
            "output; load it with slow_but_exact=False"
        )
    # The attention and MLP modules add to the stream themselves. What they add is the output of their last linear map.
    return Layout("bloom", "transformer.h", "self_attention.dense", "mlp.dense_4h_to_h", rows_apart=True)


def _falcon(config: Any) -> Layout:
    parallel = bool(config.new_decoder_architecture or config.parallel_attn)
    return Layout("falcon", "transformer.h", "self_attention", "mlp", parallel, rows_apart=bool(config.alibi))


def _gpt_neox(config: Any) -> Layout:
    return Layout("gpt_neox", "gpt_neox.layers", "attention", "mlp", bool(config.use_parallel_residual))


def _granite(config: Any) -> Layout:
    return Layout("granite", "model.layers", "self_attn", "mlp", multiplier=float(config.residual_multiplier))


def _mllama_text(config: Any) -> Layout:
    # Cross-attention blocks read an image. transformers skips them if there is none.
    return Layout(
        "mllama_text_model", "model.layers", "self_attn", "mlp", left_out=tuple(config.cross_attention_layers), rows_apart=True
    )


def _mpt(_: Any) -> Layout:
    # MPT's MLP module returns the whole stream. What it adds is the output of its last linear map.
    return Layout("mpt", "transformer.blocks", "attn", "ffn.down_proj", rows_apart=True)


def _opt(config: Any) -> Layout:
    if not config.do_layer_norm_before:
        raise InputError(
            "this OPT checkpoint normalises the stream after each branch (do_layer_norm_before=False, as opt-350m does), so its "
            "blocks do not add to a residual stream; use an OPT checkpoint with do_layer_norm_before=True"
        )
    return Layout("opt", "model.decoder.layers", "self_attn", "fc2")


def _paligemma(_: Any) -> Layout:
    raise InputError(
        "PaliGemma reads its prompt in both directions, but demur feeds a prompt from left to right, so its numbers would not "
        "describe the model in normal use"
    )


def _stablelm(config: Any) -> Layout:
    return Layout("stablelm", "model.layers", "self_attn", "mlp", bool(config.use_parallel_residual))


def _table() -> dict[str, Rule]:
    fixed = [Layout(family, "model.layers", "self_attn", "mlp") for family in _PRE_NORM]
    fixed += [Layout(family, "model.layers", attention, mlp) for family, (attention, mlp) in _POST_NORM.items()]
    fixed += [Layout(family, *paths, parallel=True) for family, paths in _PARALLEL.items()]
    fixed += [Layout(family, *paths) for family, paths in _OTHER_NAMES.items()]
    by_config: dict[str, Rule] = {
        "bloom": _bloom, "falcon": _falcon, "gpt_neox": _gpt_neox, "granite": _granite, "mllama_text_model": _mllama_text,
        "mpt": _mpt, "opt": _opt, "paligemma": _paligemma, "stablelm": _stablelm,
    }  # fmt: skip
    return {layout.family: partial(_always, layout) for layout in fixed} | by_config


def _always(layout: Layout, _: Any) -> Layout:
    return layout


_RULES = _table()
_ADDED: dict[str, Rule] = {}
_ADDED_TOWERS: dict[str, str] = {}


def register(family: str, rule: Rule) -> None:
    """Add an architecture family, or replace one, for this Python process.

    Args:
        family: the `model_type` in the config of its checkpoints.
        rule: a function from the config to the `Layout`. It may raise `InputError` for a config that cannot be supported.

    Example:
        >>> import demur
        >>> def my_family(config):
        ...     return demur.Layout("my_family", "model.layers", "self_attn", "mlp")
        >>> demur.families.register("my_family", my_family)
        >>> "my_family" in demur.families.families()
        True
        >>> demur.families.unregister("my_family")
    """
    _ADDED[family] = rule
    _ADDED_TOWERS.pop(family, None)


def register_tower(family: str, tower: str) -> None:
    """Add a multimodal family, for this Python process.

    Args:
        family: the `model_type` in the config of its checkpoints.
        tower: the path of the language model in such a model. The language model must be of a registered family.
    """
    _ADDED_TOWERS[family] = tower
    _ADDED.pop(family, None)


def unregister(family: str) -> None:
    """Remove a family that was added in this process. If it replaced one of demur's own, that one is used again."""
    _ADDED.pop(family, None)
    _ADDED_TOWERS.pop(family, None)


def families() -> tuple[str, ...]:
    """All registered `model_type`s, including multimodal ones."""
    return tuple(sorted({*_RULES, *_TOWERS, *_ADDED, *_ADDED_TOWERS}))


def layout_of(config: Any) -> Layout:
    """The layout of a checkpoint.

    Args:
        config: its transformers config.

    Raises:
        InputError: for a family that is not registered, with a related one if there is one, and for a config that cannot be
            supported.
    """
    family = str(getattr(config, "model_type", "unknown"))
    rule, tower = _ADDED.get(family), _ADDED_TOWERS.get(family)
    if rule is None and tower is None:
        rule, tower = _RULES.get(family), _TOWERS.get(family)
    if tower is not None:
        text_config = config.get_text_config()
        if text_config is config:
            raise InputError(
                f"{family!r} is registered as a multimodal family, but its config has no text config; describe it with "
                "demur.families.register instead"
            )
        text = layout_of(text_config)
        inside = text.blocks.partition(".")[2]
        return replace(text, family=family, blocks=f"{tower}.{inside}")
    if rule is None:
        raise InputError(_unknown(family, config))
    return rule(config)


def _unknown(family: str, config: Any) -> str:
    """The message about a family that is not registered. Some kinds of models have no layout that could be registered."""
    found = f"no layout is known for the architecture {family!r}"
    if family not in CONFIG_MAPPING_NAMES:
        return f"{found} ({nearest(family, families())}); describe it with demur.families.register, as docs/families.md shows"
    no_layout = _no_layout(family, config)
    if no_layout:
        return f"{found}: {no_layout}; give a causal language model, such as llama, qwen3 or gemma3"
    related = [known for known in (*_RULES, *_ADDED) if _shared_start(family, known)]
    like = f"; that of {max(related, key=lambda known: _shared_start(family, known))!r} may be a beginning" if related else ""
    return f"{found}{like}; describe it with demur.families.register, as docs/families.md shows"


def _no_layout(family: str, config: Any) -> str:
    """Why no layout can describe a model of a family that transformers knows; empty if one may."""
    from transformers.models.auto import modeling_auto as known

    if getattr(config, "is_encoder_decoder", False):
        return "it is an encoder-decoder, and demur edits the one stream of a decoder that reads the prompt and writes the answer"
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    if family in known.MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(text, "is_decoder", False):
        return "it is an encoder, which reads text in both directions, and demur measures models that write from left to right"
    writes = {*known.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *known.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES}
    if family not in writes:
        return "transformers has no class of it that writes text, and demur measures completions"
    if not hasattr(text, "num_attention_heads"):
        return "it has no attention, and a layout describes blocks of attention and MLP"
    return ""


def _shared_start(family: str, known: str) -> int:
    """How many letters two names begin with alike; 0 unless they begin with the same word, as `qwen3_next` and `qwen3` do."""
    one, other = (re.match(r"[a-z]+", name) for name in (family, known))
    same_word = one is not None and other is not None and one[0] == other[0]
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(family, known, strict=False))) if same_word else 0
