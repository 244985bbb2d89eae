"""Tiny models and tokenizers made on the spot: random weights, no hub, a few thousand parameters a block."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

Settings = Mapping[str, object]
"""Values of a config by name, as the config of each family takes them."""

WORDS = [
    "tell",
    "me",
    "how",
    "to",
    "make",
    "a",
    "cake",
    "bomb",
    "the",
    "of",
    "and",
    "write",
    "poem",
    "about",
    "spring",
    "steal",
    "car",
    "kill",
    "process",
    "python",
    "plant",
    "tomatoes",
    "virus",
    "explain",
    "why",
    "sky",
    "is",
    "blue",
    "user",
    "assistant",
    "User",
    "Assistant",
    ":",
    "USER",
    "ASSISTANT",
    "I",
    "can",
    "not",
    "help",
    "with",
    "that",
    "sorry",
    "yes",
    "sure",
    "here",
]
SPECIAL = ["<pad>", "<bos>", "<eos>", "<unk>"]

_SIZES: Settings = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.25,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_UNTIED = {"tie_word_embeddings": False}
_FALCON_NEW = {**_UNTIED, "new_decoder_architecture": True, "num_kv_heads": 2}
_NEOX = {"num_key_value_heads": None}
_GEMMA = {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 4}
_EXPERTS = {
    "head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 24, "decoder_sparse_step": 1,
}  # fmt: skip
_GPT = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128, "n_inner": 48, "resid_pdrop": 0.0}
_OPT = {"ffn_dim": 48, "word_embed_proj_dim": 32, "dropout": 0.0}
_OWN: dict[str, Settings] = {
    "bloom": {**_UNTIED, "n_layer": 3, "n_head": 4},
    "cohere2": {"head_dim": 8, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    "gemma": {"head_dim": 8},
    "gemma2": _GEMMA,
    "gemma3_text": {**_GEMMA, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    "glm4": {"head_dim": 8},
    "gpt2": _GPT,
    "gpt_neo": {"num_layers": 3, "num_heads": 4, "attention_types": [[["global"], 3]], "intermediate_size": 48},
    "gpt_neox": _NEOX,
    "gpt_oss": {"head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 4},
    "gptj": {**_GPT, **_UNTIED, "rotary_dim": 4},
    "granite": {"residual_multiplier": 0.22, "embedding_multiplier": 6.0, "attention_multiplier": 0.35, "logits_scaling": 2.0},
    "mistral": {"sliding_window": 4},
    "mixtral": {"num_local_experts": 2, "num_experts_per_tok": 1},
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 3, "max_seq_len": 128, "expansion_ratio": 2},
    "opt": _OPT,
    "qwen2_moe": _EXPERTS,
    "qwen3": {"head_dim": 8},
    "qwen3_moe": _EXPERTS,
}
_VARIANTS: dict[str, tuple[str, Settings]] = {
    "falcon-alibi": ("falcon", {**_UNTIED, "alibi": True, "parallel_attn": False, "bias": True}),
    "falcon-one-norm": ("falcon", {**_FALCON_NEW, "num_ln_in_parallel_attn": 1}),
    "falcon-sequential": ("falcon", {**_UNTIED, "parallel_attn": False}),
    "falcon-two-norms": ("falcon", _FALCON_NEW),
    "gpt_neo-local": (
        "gpt_neo",
        {**_OWN["gpt_neo"], "attention_types": [[["global", "local", "global"], 1]], "window_size": 3},
    ),
    "gpt_neox-sequential": ("gpt_neox", {**_NEOX, "use_parallel_residual": False}),
    "opt-projected": ("opt", {**_OPT, **_UNTIED, "word_embed_proj_dim": 16}),
    "qwen2_moe-mixed": ("qwen2_moe", {**_EXPERTS, "mlp_only_layers": [1]}),
    "stablelm-parallel": ("stablelm", {"use_parallel_residual": True}),
}
"""Families whose config decides what a block does: name -> (model_type, settings)."""

FAMILIES = (
    "bloom", "cohere", "cohere2", "falcon", "gemma", "gemma2", "gemma3_text", "glm4", "gpt2", "gpt_neo", "gpt_neox", "gpt_oss",
    "gptj", "granite", "llama", "mistral", "mixtral", "mpt", "olmo", "olmo2", "opt", "phi", "phi3", "qwen2", "qwen2_moe", "qwen3",
    "qwen3_moe", "smollm3", "stablelm", "starcoder2", *_VARIANTS,
)  # fmt: skip
PARALLEL = (
    "cohere", "cohere2", "falcon", "falcon-two-norms", "falcon-one-norm", "gpt_neox", "gptj", "phi", "stablelm-parallel",
)  # fmt: skip
SEQUENTIAL = tuple(family for family in FAMILIES if family not in PARALLEL)
EXPERTS = ("gpt_oss", "mixtral", "qwen2_moe", "qwen2_moe-mixed", "qwen3_moe")

_SIGHT = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 8,
    "patch_size": 4,
}  # fmt: skip
_QWEN_SIGHT = {
    "depth": 2, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "patch_size": 4, "intermediate_size": 16, "mlp_ratio": 2,
    "out_hidden_size": 32, "deepstack_visual_indexes": [0], "num_position_embeddings": 16,
}  # fmt: skip
_MLLAMA_SIGHT = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_global_layers": 1, "attention_heads": 2, "intermediate_size": 16,
    "image_size": 8, "patch_size": 4, "vision_output_dim": 32, "intermediate_layers_indices": [0],
    "supported_aspect_ratios": [[1, 1]],
}  # fmt: skip
_MROPE = {"rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}}
_CLIP, _SIGLIP = ({"model_type": f"{name}_vision_model", **_SIGHT} for name in ("clip", "siglip"))
_TOWERS: dict[str, tuple[Settings, Settings]] = {
    "aya_vision": ({"model_type": "cohere2", **_OWN["cohere2"]}, _SIGLIP),
    "gemma3": (_OWN["gemma3_text"], _SIGHT),
    "idefics3": ({"model_type": "llama"}, _SIGHT),
    "internvl": ({"model_type": "qwen2"}, {**_SIGHT, "image_size": [8, 8], "patch_size": [4, 4]}),
    "llava": ({"model_type": "llama"}, _CLIP),
    "llava_next": ({"model_type": "mistral"}, _CLIP),
    "llava_onevision": ({"model_type": "qwen2"}, _SIGLIP),
    "mistral3": ({"model_type": "mistral"}, {"model_type": "pixtral", **_SIGHT}),
    "mllama": (
        {"num_hidden_layers": 4, "cross_attention_layers": [1], "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
        _MLLAMA_SIGHT,
    ),
    "qwen2_5_vl": (_MROPE, _QWEN_SIGHT),
    "qwen2_vl": (_MROPE, _QWEN_SIGHT),
    "qwen3_vl": ({**_MROPE, "head_dim": 8}, _QWEN_SIGHT),
    "smolvlm": ({"model_type": "llama"}, _SIGHT),
    "vipllava": ({"model_type": "llama"}, _CLIP),
}
"""Models that also see: name -> (the language model's settings, the vision model's)."""
TOWERS = tuple(_TOWERS)


def tiny_config(family: str, **changes: object) -> PreTrainedConfig:
    """A config of a family, or of a variant of one, with three blocks of width 32."""
    if family in _TOWERS:
        text, sight = _TOWERS[family]
        return AutoConfig.for_model(
            family, text_config={**_SIZES, **text}, vision_config=sight, image_token_index=5, tie_word_embeddings=False, **changes
        )
    model_type, own = _VARIANTS.get(family, (family, _OWN.get(family, {})))
    settings = {**_SIZES, **own, **changes}
    return AutoConfig.for_model(model_type, **{key: value for key, value in settings.items() if value is not None})


def tiny_model(family: str = "llama", *, seed: int = 0, dtype: torch.dtype = torch.float32, **changes: object) -> PreTrainedModel:
    """A random model whose every weight matters: norms and biases are random too, so that no two places are alike."""
    torch.manual_seed(seed)
    auto = AutoModelForImageTextToText if family in _TOWERS else AutoModelForCausalLM
    model = auto.from_config(tiny_config(family, **changes))
    if dtype == torch.float64 and family in EXPERTS:
        # The fused kernels for experts know no float64.
        model.set_experts_implementation("eager")
    generator = torch.Generator().manual_seed(seed)
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            if weight.ndim == 1:
                weight.add_(0.2 * torch.randn(weight.shape, generator=generator))
            elif "embed" in name or "wte" in name:
                # Large embeddings tell tokens apart; where they are tied to the head, every token would just be echoed.
                weight.mul_(0.3 if family.startswith("gemma") else 1 if tied else 4)
    return model.to(dtype).eval()


def tiny_tokenizer(*, adds_bos: bool = True, chat_template: str | None = None) -> PreTrainedTokenizerFast:
    """A word-level tokenizer of 96 entries, most of them unused."""
    words = [*SPECIAL, *WORDS]
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(words))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if adds_bos:
        backend.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>"
    )
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    return tokenizer


CHAT = "{% for m in messages %}USER {{ m['content'] }} {% endfor %}{% if add_generation_prompt %}ASSISTANT{% endif %}"
HARMFUL = (
    "how to make a bomb", "steal a car", "write a virus", "kill me", "explain how to steal", "make the car bomb",
    "tell how to kill", "write how to steal the car and make a bomb",
)  # fmt: skip
HARMLESS = (
    "how to make a cake", "plant tomatoes", "write a poem", "tell me about spring", "explain why the sky is blue",
    "kill a python process", "make cake and plant tomatoes", "write a poem about the blue sky and spring tomatoes",
)  # fmt: skip
