"""The tokenizer that belongs to an adapter.

Programs that train adapters save the tokenizer that they trained with beside the adapter, with the chat template and the tokens
that were added. demur uses it if it differs from the base's, and says so. If it is a copy of the base's, the base's is used, so
that nothing changes.
"""

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demur.core.errors import InputError
from demur.models.library_errors import first_line
from demur.models.sole_answers import stored_template
from demur.models.tokenizers import load_tokenizer

_VOCABULARIES = (
    "tokenizer.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "tekken.json", "vocab.json", "vocab.txt",
)  # fmt: skip
_SPECIAL = ("bos_token_id", "eos_token_id", "unk_token_id")


@dataclass(frozen=True)
class UsedTokenizer:
    """The tokenizer for a model with an adapter.

    Attributes:
        tokenizer: a transformers tokenizer.
        own: whether it came with the adapter.
        said: what differs from the base's tokenizer, for provenance; None if nothing does.
    """

    tokenizer: Any
    own: bool
    said: str | None


def tokenizer_of(adapter: str, folder: Path, base: Any, config: Any) -> UsedTokenizer:
    """Choose between the tokenizer of a base and that of an adapter.

    Args:
        adapter: the name of the adapter in error messages.
        folder: the adapter's folder.
        base: the base's tokenizer.
        config: the base's config, which says what class of tokenizer it has.

    Returns:
        The adapter's tokenizer if it has one that differs from the base's; the base's with the adapter's chat template if the
        adapter has only a template; otherwise the base's tokenizer.

    Raises:
        InputError: if the adapter's tokenizer cannot be read.
    """
    if not any((folder / name).is_file() for name in _VOCABULARIES):
        return _with_template(base, stored_template(f"adapter {adapter!r}", folder))
    try:
        own = load_tokenizer(adapter, folder, config)
    except InputError:
        raise
    except Exception as error:  # tokenizers raises plain Exceptions for a file that is not its own
        raise InputError(
            f"the tokenizer beside adapter {adapter!r} cannot be loaded by transformers: {first_line(error)}; fetch it again, or "
            "remove its files to use the base's tokenizer"
        ) from error
    missing = own.chat_template is None and base.chat_template is not None
    if missing:
        own.chat_template = base.chat_template
    found = _differences(base, own)
    if not found:
        said = "that of the base, because that of the adapter lacks only the chat template" if missing else None
        return UsedTokenizer(base, False, said)
    kept = "; its chat template is that of the base, because the adapter has none" if missing else ""
    return UsedTokenizer(own, True, f"that of the adapter, which differs from the base's in {', '.join(found)}{kept}")


def _with_template(base: Any, template: str | None) -> UsedTokenizer:
    if template is None or template == base.chat_template:
        return UsedTokenizer(base, False, None)
    own = copy.deepcopy(base)
    own.chat_template = template
    return UsedTokenizer(own, True, "that of the base with the chat template of the adapter")


def _differences(base: Any, own: Any) -> list[str]:
    """What makes other prompts, or ends completions elsewhere. Padding and truncation are set by demur itself."""
    found = []
    if base.chat_template != own.chat_template:
        found.append("the chat template")
    before, now = base.get_vocab(), own.get_vocab()
    if before != now:
        added = len(set(now) - set(before))
        found.append(f"{added} added tokens" if added and before.items() <= now.items() else "the vocabulary")
    special = [name.removesuffix("_id") for name in _SPECIAL if getattr(base, name, None) != getattr(own, name, None)]
    found += [name.replace("_", " ").replace("bos", "BOS").replace("eos", "EOS") for name in special]
    if not found and _rules(base) != _rules(own):
        found.append("the rules that cut text into tokens")
    return found


def _rules(tokenizer: Any) -> object:
    """All that the tokenizers library does with a text, and how ids become text again."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    spaces = bool(getattr(tokenizer, "clean_up_tokenization_spaces", False))
    if backend is None:
        return type(tokenizer).__name__, spaces
    rules = json.loads(backend.to_str())
    return {key: value for key, value in rules.items() if key not in ("padding", "truncation")}, spaces
