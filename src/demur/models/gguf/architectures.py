"""The architectures of GGUF files that demur converts: which key becomes which attribute of the transformers config.

Sources: the keys in llama.cpp's `gguf-py/gguf/constants.py`, what `src/models/*.cpp` there computes with them, and the configs of
transformers 5.23. A key that stands nowhere in this file is refused by name (`stated_keys.py`), because nothing would apply it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

_SIZES = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
}
_RMS = {**_SIZES, "attention.layer_norm_rms_epsilon": "rms_norm_eps"}
_EXPERTS = {
    "expert_count": "num_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
}


@dataclass(frozen=True)
class Architecture:
    """How the files of one architecture become a transformers config.

    Attributes:
        family: the config's `model_type`.
        attributes: key of the file, without the architecture's name in front -> attribute of the config, with the same value.
        optional: those keys that a file may lack; the attribute then has the value here.
        fixed: attributes that follow from the architecture alone.
        rotary: whether positions are rotary.
        partial: whether the family can turn a part of a head only.
        biases: attribute -> ending of tensor names; the attribute is true where the file has such a tensor.
        zero_biases: whether a kind of bias that no layer has is zero, as in llama.cpp.
        free_head_width: whether heads may have another width than hidden size over heads.
        keys: further keys that `model_config.py` applies for this architecture.
    """

    family: str
    attributes: Mapping[str, str]
    optional: Mapping[str, float | int | None] = field(default_factory=dict)
    fixed: Mapping[str, object] = field(default_factory=dict)
    rotary: bool = True
    partial: bool = False
    biases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    zero_biases: bool = False
    free_head_width: bool = True
    keys: tuple[str, ...] = ()


_ATTENTION_BIASES = (".attn_q.bias", ".attn_k.bias", ".attn_v.bias", ".attn_output.bias")
_MLP_BIASES = (".ffn_gate.bias", ".ffn_up.bias", ".ffn_down.bias")

ARCHITECTURES: Mapping[str, Architecture] = {
    "bloom": Architecture(
        "bloom",
        {
            "context_length": "seq_length",
            "embedding_length": "hidden_size",
            "block_count": "n_layer",
            "attention.head_count": "n_head",
            "attention.layer_norm_epsilon": "layer_norm_epsilon",
        },
        rotary=False,
        free_head_width=False,
        keys=("feed_forward_length", "attention.head_count_kv"),
    ),
    "falcon": Architecture(
        "falcon",
        {
            "context_length": "max_position_embeddings",
            "embedding_length": "hidden_size",
            "block_count": "num_hidden_layers",
            "feed_forward_length": "ffn_hidden_size",
            "attention.head_count": "num_attention_heads",
            "attention.layer_norm_epsilon": "layer_norm_epsilon",
        },
        optional={"feed_forward_length": None},
        # The published 7B: one head of keys, one norm, attention and MLP side by side. The 40B is stored in another order of
        # rows.
        fixed={"multi_query": True, "new_decoder_architecture": False, "parallel_attn": True, "alibi": False, "bias": False},
        free_head_width=False,
        keys=("attention.head_count_kv",),
    ),
    "gemma2": Architecture(
        "gemma2",
        {
            **_RMS,
            "attention.sliding_window": "sliding_window",
            "attn_logit_softcapping": "attn_logit_softcapping",
            "final_logit_softcapping": "final_logit_softcapping",
        },
        optional={"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
        keys=("attention.scale", "attention.sliding_window_pattern"),
    ),
    "gemma3": Architecture(
        "gemma3_text",
        {**_RMS, "attention.sliding_window": "sliding_window", "final_logit_softcapping": "final_logit_softcapping"},
        optional={"final_logit_softcapping": None},
        keys=("attention.scale", "attention.sliding_window_pattern", "rope.freq_base_swa"),
    ),
    "gpt2": Architecture(
        "gpt2",
        {
            "context_length": "n_positions",
            "embedding_length": "n_embd",
            "block_count": "n_layer",
            "feed_forward_length": "n_inner",
            "attention.head_count": "n_head",
            "attention.layer_norm_epsilon": "layer_norm_epsilon",
        },
        rotary=False,
        free_head_width=False,
        keys=("attention.head_count_kv",),
    ),
    "llama": Architecture("llama", _RMS, biases={"attention_bias": _ATTENTION_BIASES, "mlp_bias": _MLP_BIASES}, zero_biases=True),
    "phi3": Architecture(
        "phi3",
        {**_RMS, "attention.sliding_window": "sliding_window"},
        optional={"attention.sliding_window": None},
        partial=True,
        free_head_width=False,
    ),
    "qwen2": Architecture("qwen2", _RMS, zero_biases=True),
    "qwen2moe": Architecture(
        "qwen2_moe",
        {**_RMS, **_EXPERTS, "expert_shared_feed_forward_length": "shared_expert_intermediate_size"},
        # llama.cpp's qwen2moe does not divide the weights of the chosen experts by their sum; qwen3moe does.
        fixed={"norm_topk_prob": False, "decoder_sparse_step": 1, "mlp_only_layers": []},
        zero_biases=True,
    ),
    "qwen3": Architecture("qwen3", _RMS, biases={"attention_bias": _ATTENTION_BIASES}, zero_biases=True),
    "qwen3moe": Architecture(
        "qwen3_moe",
        {**_RMS, **_EXPERTS},
        optional={"feed_forward_length": 1},  # not used: every layer has experts
        fixed={"norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": []},
        biases={"attention_bias": _ATTENTION_BIASES},
        zero_biases=True,
    ),
    "stablelm": Architecture(
        "stablelm",
        {**_SIZES, "attention.layer_norm_epsilon": "layer_norm_eps", "use_parallel_residual": "use_parallel_residual"},
        optional={"use_parallel_residual": False},
        partial=True,
        biases={"use_qkv_bias": _ATTENTION_BIASES[:3], "qk_layernorm": (".attn_q_norm.weight",)},
        free_head_width=False,
    ),
    "starcoder2": Architecture(
        "starcoder2",
        {**_SIZES, "attention.layer_norm_epsilon": "norm_epsilon"},
        biases={"use_bias": (*_ATTENTION_BIASES, ".ffn_up.bias", ".ffn_down.bias")},
        zero_biases=True,
    ),
}
