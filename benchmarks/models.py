"""Models to measure on: SmolLM2-135M with its own weights, and random weights in the shapes of larger ones.

Random weights take the same time as trained ones. Their completions mean nothing, but the benchmarks compare their tokens.
"""

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

import demur
from demur.engine.checkpoints import wrap
from demur.engine.load_transformers import DTYPES
from demur.models.sources import DEMO_MODEL

SHAPES: dict[str, dict[str, Any]] = {
    # Only to try out a benchmark.
    "tiny": {
        "family": "llama",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "intermediate_size": 128,
        "vocab_size": 512,
    },
    # From the models' configuration files.
    "smollm2-135m": {
        "family": "llama",
        "hidden_size": 576,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "intermediate_size": 1536,
        "vocab_size": 49152,
        "tie_word_embeddings": True,
    },
    "qwen-0.5b": {
        "family": "qwen2",
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "intermediate_size": 2816,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
    },
    "gemma-3-270m": {
        "family": "gemma3_text",
        "hidden_size": 640,
        "num_hidden_layers": 18,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "intermediate_size": 2048,
        "vocab_size": 262144,
        "sliding_window": 512,
    },
    "gemma-2-9b": {
        "family": "gemma2",
        "hidden_size": 3584,
        "num_hidden_layers": 42,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 256,
        "intermediate_size": 14336,
        "vocab_size": 256000,
        "query_pre_attn_scalar": 256,
    },
    "llama-7b": {
        "family": "llama",
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "intermediate_size": 11008,
        "vocab_size": 32000,
    },
}


class NoText:
    """Takes the place of a tokenizer where no text is made."""

    pad_token_id = 0
    bos_token_id = None
    eos_token_id = None


def random_model(name: str, dtype: str, device: str = "cpu", layers: int | None = None) -> demur.Checkpoint:
    """A model with random weights in this shape, made on the device. `layers` replaces the number of layers."""
    shape = dict(SHAPES[name])
    if layers is not None:
        shape["num_hidden_layers"] = layers
    config = AutoConfig.for_model(shape.pop("family"), **shape)
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=DTYPES[dtype])
    return wrap(model.eval(), NoText(), name=name)


def make(name: str, prompts: int, dtype: str, device: str = "cpu") -> tuple[demur.Checkpoint, list[list[int]]]:
    """A checkpoint, and this many prompts. Random prompts have the lengths of the contrast set's ChatML prompts."""
    if name == "smollm2":
        checkpoint = demur.load_checkpoint(DEMO_MODEL, dtype=dtype, device=device)
        harmful = demur.load_instructions("contrast-harmful").all()
        chosen = [harmful[i % len(harmful)] for i in range(prompts)]
        return checkpoint, demur.prompt_format("chatml", checkpoint).encode(chosen)
    generator = torch.Generator().manual_seed(1)
    lengths = (torch.randint(20, 34, (prompts,), generator=generator)).tolist()
    vocabulary = SHAPES[name]["vocab_size"]
    ids = [torch.randint(3, vocabulary, (length,), generator=generator).tolist() for length in lengths]
    return random_model(name, dtype, device), ids
