"""Loads a checkpoint's tokenizer so that text is cut as its `tokenizer.json` says.

transformers 5 makes a tokenizer of the class that `tokenizer_config.json` names. Many of these classes do not read how
`tokenizer.json` cuts text; they set it themselves, and then prompts have other tokens than those the model was trained with. Here
transformers' object stays, because it holds the chat template and the special tokens. Only the part that cuts and joins text is
taken from the file.

A tokenizer without `tokenizer.json` is left as transformers makes it.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer

from demur.core.errors import InputError

FILE, CONFIG = "tokenizer.json", "tokenizer_config.json"
_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_PROBE = (
    "In 1984 there were 12,345 CAKES;  we'll\n\n  eat\tthem\u2009all \u2014 "
    "na\u00efve caf\u00e9 \ufb01n, \u4f60\u597d! \U0001f600"
)
"""A text on which tokenizers differ: digits, case, short forms, runs of white space, accents, ligatures, other scripts."""


def load_tokenizer(model: str, folder: Path, config: Any = None) -> Any:
    """Load the tokenizer of a folder.

    Args:
        model: the name of the model in error messages.
        folder: the folder with its files.
        config: the model's config, if the folder has none.

    Returns:
        A transformers tokenizer. Its ids are those of `tokenizer.json`, if the folder has one. `notes_of` says where
        `tokenizer_config.json` asks for something else.

    Raises:
        InputError: if `tokenizer.json` gives a token another id than the other files do, or if transformers cannot cut text as
            it says.
    """
    given = {} if config is None else {"config": config}
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **given)
    file = folder / FILE
    if not file.is_file():
        return tokenizer
    own = Tokenizer.from_file(str(file))
    # Stored settings for training batches; they would cut off long prompts or pad short ones.
    own.no_truncation()
    own.no_padding()
    made = getattr(tokenizer, "_tokenizer", None)
    if not isinstance(made, Tokenizer):
        _require_same(model, tokenizer, own)
        return tokenizer
    notes = tuple(_differences(tokenizer, made, own, _read(folder / CONFIG)))
    _add_missing(model, folder, tokenizer, made, own)
    tokenizer._tokenizer = own
    tokenizer.split_special_tokens = False
    tokenizer.demur_notes = notes
    return tokenizer


def notes_of(tokenizer: Any) -> tuple[str, ...]:
    """What `tokenizer_config.json` asks for that differs from `tokenizer.json`, and is therefore not done; a phrase each."""
    found: tuple[str, ...] = getattr(tokenizer, "demur_notes", ())
    return found


def embedding_rows(model: Any) -> int:
    """The number of rows of a transformers model's embedding: ids from this number on cannot be looked up."""
    return int(model.get_input_embeddings().weight.shape[0])


def tokens_beyond(tokenizer: Any, rows: int) -> dict[str, int]:
    """The tokens for which the embedding has no row.

    Args:
        tokenizer: a transformers tokenizer.
        rows: the number of rows of the embedding.

    Returns:
        Text of the token -> its id, in the order of ids.
    """
    beyond = ((token, index) for token, index in tokenizer.get_vocab().items() if index >= rows)
    return dict(sorted(beyond, key=lambda pair: pair[1]))


def require_rows(model: str, tokenizer: Any, rows: int) -> None:
    """Refuse a tokenizer whose ordinary tokens have no row in the embedding: ordinary text would end in a crash.

    Added tokens are allowed, because Gemma 3 has one for images in models that read only text. A prompt that holds one is refused
    (`demur.inputs.prompts`).

    Args:
        model: the name of the model in the message.
        tokenizer: a transformers tokenizer.
        rows: the number of rows of the embedding.

    Raises:
        InputError: with the first such token.
    """
    added = set(getattr(tokenizer, "added_tokens_encoder", ()))
    ordinary = [(token, index) for token, index in tokens_beyond(tokenizer, rows).items() if token not in added]
    if ordinary:
        token, index = ordinary[0]
        raise InputError(
            f"the tokenizer of {model!r} has {len(ordinary)} tokens for which the embedding has no row, such as {token!r} with "
            f"id {index}, and the embedding has {rows} rows; the tokenizer does not belong to these weights, so fetch the files "
            "again"
        )


def _require_same(model: str, tokenizer: Any, own: Tokenizer) -> None:
    """Refuse a tokenizer that is not made by the library `tokenizers` and cuts text in another way than the file says."""
    ids = list(tokenizer(_PROBE, add_special_tokens=False)["input_ids"])
    if ids != own.encode(_PROBE, add_special_tokens=False).ids:
        raise InputError(
            f"the tokenizer of {model!r} is of transformers' class {type(tokenizer).__name__}, which cuts text in another way "
            f"than {FILE} says; set tokenizer_class to PreTrainedTokenizerFast in {CONFIG}"
        )


def _differences(tokenizer: Any, made: Tokenizer, own: Tokenizer, config: Mapping[str, object]) -> Iterator[str]:
    """What transformers' own object does, or the config asks for, that `own` does not do."""
    kind = type(tokenizer).__name__
    if made.encode(_PROBE, add_special_tokens=False).tokens != own.encode(_PROBE, add_special_tokens=False).tokens:
        yield f"text is cut as {FILE} says, not as transformers' class {kind} does"
    # Tokens after the text do not matter here, because demur never adds any to a prompt.
    first, others = _first_tokens(own), _first_tokens(made)
    bos, asked = tokenizer.bos_token, config.get("add_bos_token")
    if first != others:
        yield (
            f"a text begins with {_shown(first)}, as {FILE} says, and not with {_shown(others)}, as transformers' class "
            f"{kind} does"
        )
    elif isinstance(asked, bool) and asked != (bos in first):
        does = "does not add" if asked else "adds"
        yield f"add_bos_token is {str(asked).lower()} in {CONFIG}, but {FILE} {does} {bos!r}; the file decides"
    if tokenizer.split_special_tokens:
        yield f"split_special_tokens in {CONFIG} is not followed, because a chat template's marks would become plain text"


def _first_tokens(one: Tokenizer) -> list[str]:
    """The tokens that a tokenizer adds before a text."""
    full, plain = one.encode("a"), one.encode("a", add_special_tokens=False)
    start = next((i for i in range(len(full.ids)) if full.ids[i : i + len(plain.ids)] == plain.ids), 0)
    return list(full.tokens[:start])


def _shown(tokens: list[str]) -> str:
    return " ".join(map(repr, tokens)) or "no token of its own"


def _add_missing(model: str, folder: Path, tokenizer: Any, made: Tokenizer, own: Tokenizer) -> None:
    """Add to `own` the tokens that only the other files name, and let go of those that no file names."""
    named = _named_elsewhere(folder)
    stated, known = own.get_added_tokens_decoder(), own.get_vocab(with_added_tokens=True)
    in_file = {token.content: token for token in stated.values()}
    for _, token in sorted(made.get_added_tokens_decoder().items()):
        text = token.content
        if text in in_file:
            if token.special and not in_file[text].special:
                # The other files say that it is special, so completions leave it out. How it is found in text stays.
                own.add_special_tokens([in_file[text]])
        elif text in named:
            own.add_tokens([token])
            if text not in known and named[text] not in (None, own.token_to_id(text)):
                raise InputError(
                    f"the files of {model!r} give the token {text!r} the id {named[text]}, but {FILE} lacks it and has "
                    f"{own.token_to_id(text)} as its next free id; save the tokenizer again with all its tokens"
                )
    # A class of transformers has default names of special tokens, which this vocabulary may not have.
    vocabulary = own.get_vocab(with_added_tokens=True)
    for name in _NAMED:
        value = getattr(tokenizer, name, None)
        if value is not None and str(value) not in vocabulary:
            setattr(tokenizer, name, None)


def _named_elsewhere(folder: Path) -> dict[str, int | None]:
    """The tokens that files beside `tokenizer.json` name, with their ids where a file says so."""
    found: dict[str, int | None] = {}
    for name in (CONFIG, "special_tokens_map.json"):
        facts = _read(folder / name)
        for key in (*_NAMED, "additional_special_tokens", "extra_special_tokens"):
            found |= dict.fromkeys(_texts(facts.get(key)))
        decoder = facts.get("added_tokens_decoder")
        for index, token in decoder.items() if isinstance(decoder, dict) else ():
            found |= {text: int(index) for text in _texts(token)}
    return found | {text: index for text, index in _read(folder / "added_tokens.json").items() if isinstance(index, int)}


def _texts(value: object) -> Iterator[str]:
    """The texts of tokens, which files write as a text, as a table with `content`, or as a list or table of these."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping) and "content" in value:
        yield str(value["content"])
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _texts(one)
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _texts(one)


def _read(path: Path) -> dict[str, object]:
    if not path.is_file():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    return found if isinstance(found, dict) else {}
