"""Writes tiny models into GGUF files as llama.cpp's converter does: its names and keys, its order of rows, its norms plus one."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedModel

from tests.tiny import tiny_model

LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""The regular expression in the tokenizer.json of Llama 3."""

SPECIAL = ["<pad>", "<bos>", "<eos>"]
_TEXT = [
    "How do I make a cake in 1984, and 20241 of them?",
    "don't write (a) poem\n\n about spring!",
    "in  two   lines\n\tand 3.14",
]

Change = Callable[[gguf.GGUFWriter], object]


def byte_level(*expressions: str, digits: bool = False) -> Tokenizer:
    """A byte-level tokenizer that is trained on a few sentences, with GPT-2's expression or its own."""
    made = Tokenizer(models.BPE())
    cuts: list[pre_tokenizers.PreTokenizer] = [pre_tokenizers.Split(Regex(one), "isolated") for one in expressions]
    cuts += [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    made.pre_tokenizer = pre_tokenizers.Sequence([*cuts, pre_tokenizers.ByteLevel(False, use_regex=not expressions)])
    trainer = trainers.BpeTrainer(
        vocab_size=340, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    made.train_from_iterator(_TEXT * 9, trainer)
    return made


def sentencepiece() -> dict[str, list[object]]:
    """Tokens, kinds and scores of a small SentencePiece vocabulary: special tokens, all bytes, letters, and merged pieces."""
    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.Replace(" ", "▁")
    trainer = trainers.BpeTrainer(vocab_size=160, show_progress=False)
    made.train_from_iterator(_TEXT * 9, trainer)
    pieces = [token for token, _ in sorted(made.get_vocab().items(), key=lambda one: one[1])]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "[INST]", "<tool>", *pieces]
    kinds = [2, 3, 3, *[6] * 256, 3, 4, *[1] * len(pieces)]
    scores = [0.0] * 261 + [-float(number) for number in range(len(pieces))]
    return {"tokens": list(tokens), "kinds": list(kinds), "scores": list(scores)}


def sized(family: str, vocabulary: int, **settings: Any) -> PreTrainedModel:  # Any: values of a config
    """A tiny model with random weights and as many tokens as a tokenizer."""
    return tiny_model(family, seed=1, vocab_size=vocabulary, **settings)


def write(
    path: Path,
    model: PreTrainedModel,
    tokenizer: Tokenizer | dict[str, list[object]],
    architecture: str = "llama",
    *,
    pre: str | None = "gpt-2",
    change: Change | None = None,
    tensors: Mapping[str, object] | None = None,
    without: tuple[str, ...] = (),
) -> Path:
    """Write a model with its tokenizer.

    Args:
        path: the file.
        model: the model.
        tokenizer: its tokenizer; a byte-level one, or what `sentencepiece` returns.
        architecture: what `general.architecture` says.
        pre: what `tokenizer.ggml.pre` says; None leaves it out.
        change: adds or replaces keys.
        tensors: further tensors.
        without: keys to leave out, without the architecture's name in front.

    Returns:
        The file.
    """
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in _sizes(model).items():
        if key not in without:
            (writer.add_float32 if isinstance(value, float) else writer.add_uint32)(f"{architecture}.{key}", value)
    if isinstance(tokenizer, Tokenizer):
        _write_byte_level(writer, tokenizer, pre)
    else:
        writer.add_tokenizer_model("llama")
        writer.add_token_list(tokenizer["tokens"])
        writer.add_token_types(tokenizer["kinds"])
        writer.add_token_scores(tokenizer["scores"])
    if change is not None:
        change(writer)
    for name, tensor in (_tensors(model, architecture) | dict(tensors or {})).items():
        writer.add_tensor(name, np.ascontiguousarray(tensor, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _sizes(model: PreTrainedModel) -> dict[str, int | float]:
    config = model.config
    heads = config.num_attention_heads
    found: dict[str, int | float | None] = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": _inner(model),
        "attention.head_count": heads,
        "attention.head_count_kv": _groups(model),
        "attention.layer_norm_rms_epsilon": getattr(config, "rms_norm_eps", None),
        "attention.layer_norm_epsilon": next(
            (getattr(config, name) for name in ("layer_norm_epsilon", "layer_norm_eps", "norm_epsilon") if hasattr(config, name)),
            None,
        ),
    }
    rotary = getattr(config, "rope_parameters", None) or {}
    rotary = rotary.get("full_attention", rotary)
    if rotary:
        width = getattr(config, "head_dim", None) or config.hidden_size // heads
        found["rope.freq_base"] = float(rotary["rope_theta"])
        found["rope.dimension_count"] = int(width * rotary.get("partial_rotary_factor", 1.0))
        if width != config.hidden_size // heads or hasattr(config, "head_dim"):
            found |= {"attention.key_length": width, "attention.value_length": width}
    return {key: value for key, value in found.items() if value is not None}


def _inner(model: PreTrainedModel) -> int:
    config = model.config
    # The config of a tiny model also has sizes that its family does not use.
    names = {"bloom": (), "falcon": ("ffn_hidden_size",)}.get(config.model_type, ("intermediate_size", "n_inner"))
    return int(next(filter(None, (getattr(config, name, None) for name in names)), 4 * config.hidden_size))


def _groups(model: PreTrainedModel) -> int:
    config = model.config
    if config.model_type == "falcon":
        return 1
    if config.model_type in ("bloom", "gpt2"):
        return int(config.num_attention_heads)
    return int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)


def _write_byte_level(writer: gguf.GGUFWriter, tokenizer: Tokenizer, pre: str | None) -> None:
    vocabulary = tokenizer.get_vocab()
    tokens = sorted(vocabulary, key=lambda one: vocabulary[one])
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    if pre is not None:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if one in SPECIAL else 1 for one in tokens])
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)


def _tensors(model: PreTrainedModel, architecture: str) -> dict[str, object]:
    config = model.config
    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    found: dict[str, object] = {}
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values = weight.float().numpy()
        if ".experts." in name:
            block = name.split(".")[2]
            parts = np.split(values, 2, axis=1) if "gate_up" in name else [values]
            kinds = ("gate", "up") if "gate_up" in name else ("down",)
            found |= {f"blk.{block}.ffn_{kind}_exps.weight": part for kind, part in zip(kinds, parts, strict=True)}
            continue
        kept, _, end = name.rpartition(".")
        # An older name of gguf-py's for BLOOM and the routers of mixtures.
        place = names.get_name(kept) or names.get_name(kept.removeprefix("transformer."))
        assert place is not None, name
        if architecture == "llama" and ".attn_q" in place:
            values = _interleaved(values, config.num_attention_heads)
        if architecture == "llama" and ".attn_k" in place:
            values = _interleaved(values, config.num_key_value_heads)
        if architecture in ("gemma2", "gemma3") and "norm" in place:
            values = values + 1
        if architecture == "gpt2" and place.endswith(("attn_qkv", "attn_output", "ffn_up", "ffn_down")) and end == "weight":
            values = values.T
        if architecture == "bloom" and place.endswith("attn_qkv"):
            parts = values.reshape(config.n_head, 3, -1, *values.shape[1:])
            values = np.concatenate([parts[:, part].reshape(-1, *values.shape[1:]) for part in range(3)])
        found[f"{place}.{end}"] = values.reshape(-1) if place.endswith("ffn_gate_inp_shexp") else values
    return found


def _interleaved(weight: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]", heads: int) -> object:
    """Rows as llama.cpp's Llama has them: the two numbers that turn together are neighbours."""
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)
