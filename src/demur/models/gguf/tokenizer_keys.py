"""What a GGUF file states about its tokens: texts, kinds, scores, which ones are special, and what is added to a text."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from demur.core.errors import InputError
from demur.models.gguf.metadata import Facts, Value, shown

_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4
"""Kinds of tokens in `tokenizer.ggml.token_type`; all others are ordinary text."""

# Tokens that llama.cpp treats as control tokens by their text, whatever kind the file gives them: ends of turns and of texts, and
# those that mark where code is filled in.
_CONTROL_BY_TEXT: Final = frozenset(
    [
        "<|eot_id|>",
        "<|im_end|>",
        "<|end|>",
        "<|return|>",
        "<|call|>",
        "<|flush|>",
        "<|calls|>",
        "<end_of_turn>",
        "<|endoftext|>",
        "</s>",
        "<|eom_id|>",
        "<EOT>",
        "_<EOT>",
        "[EOT]",
        "[EOS]",
        "<|end_of_text|>",
        "<end_of_utterance>",
        "<eos>",
        "<turn|>",
        "<|tool_response>",
        "<｜end▁of▁sentence｜>",
        "[e~[",
        "<|fim_prefix|>",
        "<fim-prefix>",
        "<fim_prefix>",
        "<｜fim▁begin｜>",
        "<PRE>",
        "▁<PRE>",
        "<|code_prefix|>",
        "<|prefix|>",
        "<|fim_suffix|>",
        "<fim-suffix>",
        "<fim_suffix>",
        "<｜fim▁hole｜>",
        "<SUF>",
        "▁<SUF>",
        "<|code_suffix|>",
        "<|suffix|>",
        "<|fim_middle|>",
        "<fim-middle>",
        "<fim_middle>",
        "<｜fim▁end｜>",
        "<MID>",
        "▁<MID>",
        "<|code_middle|>",
        "<|middle|>",
        "<|fim_pad|>",
        "<fim-pad>",
        "<fim_pad>",
        "<PAD>",
        "[PAD]",
        "<|fim_repo|>",
        "<|repo_name|>",
        "<fim-repo>",
        "<REPO>",
        "<reponame>",
        "<|file_sep|>",
    ]
)

_APPLIED: Final = tuple(
    f"tokenizer.ggml.{key}"
    for key in (
        "model", "pre", "tokens", "token_type", "scores", "merges", "bos_token_id", "eos_token_id",
        "eot_token_id", "eom_token_id",
        "unknown_token_id", "padding_token_id", "add_bos_token", "add_eos_token", "add_space_prefix",
    )
)  # fmt: skip
_DESCRIBES: Final = (
    "tokenizer.chat_template", "tokenizer.chat_templates", "tokenizer.huggingface.json", "tokenizer.ggml.token_type_count",
    *(f"tokenizer.ggml.{key}_token_id" for key in (
        "seperator", "separator", "mask", "cls", "prefix", "suffix", "middle", "fim_pre", "fim_suf", "fim_mid",
        "fim_pad", "fim_rep", "fim_sep",
    )),
)  # fmt: skip
"""Keys that change no token id of a plain text. Of several chat templates, the one without a name is used."""

_USUAL: Final = {"bos": 1, "eos": 2, "unknown": 0}
"""The special tokens of a SentencePiece file that names none, where llama.cpp's first models had them."""

_NEUTRAL: Final[Mapping[str, tuple[Value, ...]]] = {
    "tokenizer.ggml.add_sep_token": (False,),
    "tokenizer.ggml.normalizer.lowercase": (False,),
    "tokenizer.ggml.normalizer.strip_accents": (False,),
    "tokenizer.ggml.precompiled_charsmap": ([],),
    "tokenizer.ggml.remove_extra_whitespaces": (False,),
    "tokenizer.ggml.suppress_tokens": ([],),
}
"""Keys of which one value changes nothing; any other value is refused."""


@dataclass(frozen=True)
class Tokens:
    """The vocabulary of a file.

    Attributes:
        model: the kind of tokenizer: `gpt2` (byte-level) or `llama` (SentencePiece).
        texts: the tokens in the order of their ids.
        ids: the id of each.
        scores: the score of each, for `llama`.
        control: the texts of control tokens and of the unknown token.
        user_defined: the texts of tokens that are matched whole but stand for text.
        bos: the id of the token that begins a text.
        eos: the id of the token that ends it.
        unknown: the id of the token for what no other token can write.
        padding: the id of the padding token.
        adds_bos: whether BOS is added; None if the file does not say.
        adds_eos: whether EOS is added; None if the file does not say.
    """

    model: str
    texts: tuple[str, ...]
    ids: dict[str, int]
    scores: tuple[float, ...]
    control: frozenset[str]
    user_defined: frozenset[str]
    bos: int | None
    eos: int | None
    unknown: int | None
    padding: int | None
    adds_bos: bool | None
    adds_eos: bool | None


def read_tokens(facts: Facts, rows: int) -> Tokens:
    """Read the vocabulary of a file.

    Args:
        facts: the file.
        rows: the rows of the model's embedding.

    Raises:
        InputError: for a kind of tokenizer that demur does not build, a key that would change token ids and is not applied,
        tokens that stand twice or have no row in the embedding, and a special token outside the vocabulary.
    """
    model = str(facts.values.get("tokenizer.ggml.model", ""))
    if model not in ("gpt2", "llama"):
        raise InputError(
            f"{facts.name} states 'tokenizer.ggml.model' = {model!r}, and demur builds tokenizers of the kinds 'gpt2' and "
            "'llama'; give the checkpoint as a hub id or a folder"
        )
    _require_known_keys(facts)
    texts = _texts(facts, rows)
    kinds = _for_each(facts, "token_type", len(texts)) or [1] * len(texts)
    control = {text for text, kind in zip(texts, kinds, strict=True) if kind in (_UNKNOWN, _CONTROL) or text in _CONTROL_BY_TEXT}
    scores = _for_each(facts, "scores", len(texts))
    if model == "llama" and len(set(scores)) < 2:
        raise InputError(
            f"{facts.name} has no scores in 'tokenizer.ggml.scores', without which its text cannot be cut into tokens; fetch "
            "it again"
        )
    return Tokens(
        model=model,
        texts=texts,
        ids={text: number for number, text in enumerate(texts)},
        scores=tuple(scores),
        control=frozenset(control),
        user_defined=frozenset(text for text, kind in zip(texts, kinds, strict=True) if kind == _USER_DEFINED) - control,
        bos=_special(facts, "bos", len(texts)),
        eos=_special(facts, "eos", len(texts)),
        unknown=_special(facts, "unknown", len(texts)),
        padding=_special(facts, "padding", len(texts)),
        adds_bos=_flag(facts, "add_bos_token"),
        adds_eos=_flag(facts, "add_eos_token"),
    )


def stop_ids(facts: Facts, tokens: int) -> list[int]:
    """The ids that end an answer, as the file states them: the end of a text, of a turn, and of a message.

    Args:
        facts: the file.
        tokens: the number of its tokens.
    """
    found = [_special(facts, key, tokens) for key in ("eos", "eot", "eom")]
    return list(dict.fromkeys(one for one in found if one is not None))


def _require_known_keys(facts: Facts) -> None:
    for key, value in facts.values.items():
        if not key.startswith("tokenizer.") or key in _APPLIED or key in _DESCRIBES or key.startswith("tokenizer.chat_template."):
            continue
        if value not in _NEUTRAL.get(key, ()):
            raise InputError(
                f"{facts.name} states '{key}' = {shown(value)}, which demur cannot apply, so its token ids would not be those "
                "of this model; give the checkpoint as a hub id or a folder"
            )


def _texts(facts: Facts, rows: int) -> tuple[str, ...]:
    stated = facts.values.get("tokenizer.ggml.tokens")
    if not isinstance(stated, list | tuple) or not stated:
        raise InputError(f"{facts.name} has no key 'tokenizer.ggml.tokens', so it has no vocabulary; fetch it again")
    # Two tokens cannot both be empty; llama.cpp gives an empty one this name.
    texts = tuple(str(text) or f"[EMPTY_{number}]" for number, text in enumerate(stated))
    if len(texts) > rows:
        raise InputError(
            f"{facts.name} has {len(texts)} tokens but {rows} rows in its embedding, so token {rows} and those after it "
            "cannot be read; fetch it again"
        )
    seen: dict[str, int] = {}
    for number, text in enumerate(texts):
        if seen.setdefault(text, number) != number:
            raise InputError(f"{facts.name} has the token {text!r} twice, as {seen[text]} and {number}; fetch it again")
    return texts


def _for_each(facts: Facts, key: str, count: int) -> list[float]:
    """The numbers of a list with one number for each token; empty if the file has no such list."""
    stated = facts.values.get(f"tokenizer.ggml.{key}")
    if stated is None:
        return []
    if not isinstance(stated, list | tuple) or len(stated) < count:
        raise InputError(
            f"{facts.name} has {count} tokens, but 'tokenizer.ggml.{key}' is {shown(stated)}; one number for each is expected"
        )
    return [float(one) for one in stated[:count]]


def _special(facts: Facts, which: str, count: int) -> int | None:
    stated = facts.values.get(f"tokenizer.ggml.{which}_token_id")
    if stated is None:
        usual = _USUAL.get(which) if facts.values.get("tokenizer.ggml.model") == "llama" else None
        return usual if usual is not None and usual < count else None
    if not isinstance(stated, int) or stated >= count:
        raise InputError(
            f"{facts.name} states 'tokenizer.ggml.{which}_token_id' = {shown(stated)}, but it has {count} tokens; fetch it again"
        )
    return stated


def _flag(facts: Facts, key: str) -> bool | None:
    stated = facts.values.get(f"tokenizer.ggml.{key}")
    return None if stated is None else bool(stated)
