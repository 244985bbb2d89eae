"""The tokenizer that a GGUF file describes, built from what the file states, so that its token ids are those of llama.cpp.

transformers' own conversion knows some names of `tokenizer.ggml.pre` and falls back to GPT-2's for the rest, does not look up
whole words before merging, and drops control tokens outside the byte alphabet. So the tokenizer is built here, with `tokenizers`.
Source of the rules: llama.cpp, `src/llama-vocab.cpp`.
"""

from typing import TYPE_CHECKING

from demur.core.errors import InputError, nearest
from demur.models.gguf.metadata import Facts
from demur.models.gguf.text_splitting import SPLITTINGS, Splitting
from demur.models.gguf.tokenizer_keys import Tokens, read_tokens

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer
    from transformers import PreTrainedTokenizerBase

_SPACE = "▁"
"""How a SentencePiece vocabulary writes a space."""


def build_tokenizer(facts: Facts, rows: int) -> "PreTrainedTokenizerBase":
    """The file's tokenizer.

    Args:
        facts: the file.
        rows: the rows of the model's embedding.

    Raises:
        InputError: for a kind of tokenizer or a way of cutting text that demur does not know, and for a vocabulary that is not
        whole.
    """
    from transformers import PreTrainedTokenizerFast

    tokens = read_tokens(facts, rows)
    if tokens.model == "gpt2":
        splitting = _splitting(facts)
        backend = _byte_level(facts, tokens, splitting)
        adds_bos = splitting.adds_bos
    else:
        backend = _sentencepiece(facts, tokens)
        adds_bos = True
    for token in _matched_whole(facts, tokens):
        (backend.add_special_tokens if token.special else backend.add_tokens)([token])
    _require_same_ids(facts, tokens, backend)
    adds_bos, adds_eos = tokens.adds_bos if tokens.adds_bos is not None else adds_bos, bool(tokens.adds_eos)
    for adds, what, one in ((adds_bos, "bos", tokens.bos), (adds_eos, "eos", tokens.eos)):
        if adds and one is None:
            raise InputError(
                f"{facts.name} adds a {what.upper()} token to each text but has no key 'tokenizer.ggml.{what}_token_id'"
            )
    named = {"bos_token": tokens.bos, "eos_token": tokens.eos, "unk_token": tokens.unknown, "pad_token": tokens.padding}
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        add_bos_token=adds_bos,
        add_eos_token=adds_eos,
        clean_up_tokenization_spaces=False,
        **{name: tokens.texts[one] if one is not None else None for name, one in named.items()},
    )
    template = facts.values.get("tokenizer.chat_template")
    if template is not None:
        made.chat_template = str(template)
    return made


def _splitting(facts: Facts) -> Splitting:
    name = facts.values.get("tokenizer.ggml.pre")
    if name is None:
        raise InputError(
            f"{facts.name} has no key 'tokenizer.ggml.pre', which says how its text is cut into tokens, as files made before "
            "May 2024; convert the checkpoint with a newer llama.cpp, or give it as a hub id or a folder"
        )
    found = SPLITTINGS.get(str(name))
    if found is None:
        raise InputError(
            f"{facts.name} states 'tokenizer.ggml.pre' = {name!r}, a way of cutting text that demur does not know "
            f"({nearest(str(name), SPLITTINGS)}); give the checkpoint as a hub id or a folder"
        )
    return found


def _byte_level(facts: Facts, tokens: Tokens, splitting: Splitting) -> "Tokenizer":
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    backend = Tokenizer(models.BPE(vocab=tokens.ids, merges=_merges(facts, tokens), ignore_merges=splitting.whole_words))
    cuts = [pre_tokenizers.Split(Regex(expression), "isolated") for expression in splitting.expressions]
    backend.pre_tokenizer = pre_tokenizers.Sequence([*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    backend.decoder = decoders.ByteLevel()
    return backend


def _merges(facts: Facts, tokens: Tokens) -> list[tuple[str, str]]:
    """The merges whose parts and result are tokens, in their order; llama.cpp has no use for others either.

    Raises:
        InputError: if there are none.
    """
    stated = facts.values.get("tokenizer.ggml.merges")
    if not isinstance(stated, list | tuple):
        raise InputError(f"{facts.name} has no key 'tokenizer.ggml.merges', without which no text can be cut; fetch it again")
    found = []
    for merge in stated:
        # The first character may be a space itself.
        cut = str(merge).find(" ", 1)
        pair = (str(merge)[:cut], str(merge)[cut + 1 :])
        if cut > 0 and all(part in tokens.ids for part in (*pair, "".join(pair))):
            found.append(pair)
    return found


def _sentencepiece(facts: Facts, tokens: Tokens) -> "Tokenizer":
    from tokenizers import Tokenizer, decoders, models, normalizers

    unknown = tokens.texts[tokens.unknown] if tokens.unknown is not None else None
    backend = Tokenizer(
        models.BPE(vocab=tokens.ids, merges=_by_score(tokens), unk_token=unknown, fuse_unk=True, byte_fallback=True)
    )
    prefix = facts.values.get("tokenizer.ggml.add_space_prefix", True)
    # A space is added after each control token too, as llama.cpp does, and in front of a text that begins with one.
    steps = [normalizers.Prepend(_SPACE)] if prefix else []
    backend.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", _SPACE)])
    strip = [decoders.Strip(" ", left=1)] if prefix else []
    backend.decoder = decoders.Sequence([decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    return backend


def _by_score(tokens: Tokens) -> list[tuple[str, str]]:
    """Every way to make a token of two tokens, the token with the best score first.

    SentencePiece merges the two neighbours whose token has the best score. That is a list of merges in the order of scores.
    """
    found = [
        (-tokens.scores[number], number, -cut, text[:cut], text[cut:])
        for text, number in tokens.ids.items()
        for cut in range(1, len(text))
        if text[:cut] in tokens.ids and text[cut:] in tokens.ids
    ]
    return [(left, right) for *_, left, right in sorted(found)]


def _matched_whole(facts: Facts, tokens: Tokens) -> "list[AddedToken]":
    """The tokens that are found in a text before it is cut: control tokens, the unknown token, and those that a user defined."""
    from tokenizers import AddedToken

    # llama.cpp knows by the model's name that Phi-3's control tokens swallow the white space after them.
    swallows = any(name in str(facts.values.get("general.name", "")).lower() for name in ("phi-3", "phi3"))
    kept = ("<unk>", "<s>", "<|endoftext|>")
    return [
        AddedToken(text, normalized=False, special=text in tokens.control, rstrip=swallows and text not in kept)
        for text in tokens.texts
        if text in tokens.control or text in tokens.user_defined
    ]


def _require_same_ids(facts: Facts, tokens: Tokens, backend: "Tokenizer") -> None:
    """Check that each token has the id of its place in the file."""
    got = backend.get_vocab(with_added_tokens=True)
    for text, number in tokens.ids.items():
        if got.get(text) != number:
            raise InputError(
                f"the token {text!r} of {facts.name} has the id {number}, but the tokenizers library gives it "
                f"{got.get(text)}; give the checkpoint as a hub id or a folder"
            )
