"""Tiny models and tokenizers made on the spot: random weights, no hub, a few thousand parameters a block."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

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

_SIZES: dict[str, Any] = {
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
_OWN: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128, "n_inner": 48},
    "gpt_neo": {"num_layers": 3, "num_heads": 4, "attention_types": [[["global"], 3]], "intermediate_size": 48},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32, "dropout": 0.0},
    "gemma": {"head_dim": 8},
    "gemma2": {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 64},
    "gemma3_text": {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 64},
    "qwen3": {"head_dim": 8},
    "mixtral": {"num_local_experts": 2, "num_experts_per_tok": 1},
    "gpt_neox": {"num_key_value_heads": None},
}
FAMILIES = (
    "llama", "mistral", "mixtral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi3", "smollm3", "olmo2", "gpt2",
    "gpt_neo", "gpt_neox", "opt", "stablelm",
)  # fmt: skip
SEQUENTIAL = tuple(family for family in FAMILIES if family != "gpt_neox")


def tiny_config(family: str, **changes: Any) -> Any:
    """A config of a family with three blocks of width 32."""
    settings = {**_SIZES, **_OWN.get(family, {}), **changes}
    return AutoConfig.for_model(family, **{key: value for key, value in settings.items() if value is not None})


def tiny_model(family: str = "llama", *, seed: int = 0, dtype: torch.dtype = torch.float32, **changes: Any) -> PreTrainedModel:
    """A random model whose every weight matters: norms and biases are random too, so that no two places are alike."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(tiny_config(family, **changes))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            if weight.ndim == 1:
                weight.add_(0.2 * torch.randn(weight.shape, generator=generator))
            elif "embed" in name or "wte" in name:
                # Large embeddings tell tokens apart; where they are tied to the head, every token would just be echoed.
                weight.mul_(0.3 if family.startswith("gemma") else 1 if model.config.tie_word_embeddings else 4)
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
