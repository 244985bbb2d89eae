"""The prompt formats in which two checkpoints can be compared: first a format that both share, then the chat checkpoint's own.

If the prompt is the same and only the weights differ, a difference between answers is one of the weights. So at least one format
is the same text on both sides.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from demur.core.errors import InputError
from demur.inputs.chat_templates import NativeTemplate
from demur.inputs.prompt_formats import NATIVE
from demur.inputs.prompts import Prompt, prompt_format

PLAIN = "user-assistant"
"""The format of checkpoints that share no chat template: plain text, which every model can continue."""

TEMPLATE = "chat-template"
"""The name of the chat checkpoint's own template where the other checkpoint gets it too."""

_PROBES = ("Write a poem.", "How do I bake a cake? Be brief.", "Why is the sky blue")


@dataclass(frozen=True)
class PairFormats:
    """Prompt formats for two checkpoints.

    Attributes:
        names: the formats, the shared one first.
        texts: the texts of those that are not registered.
        notes: what a reader should know of the choice, in sentences.
    """

    names: tuple[str, ...]
    texts: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Owner:
    """Anything with a tokenizer, as `prompt_format` takes it."""

    tokenizer: Any


def pair_formats(base: Any, chat: Any) -> PairFormats:
    """Choose the formats in which a base and a chat checkpoint are compared.

    Args:
        base: the tokenizer of the base checkpoint.
        chat: the tokenizer of the chat checkpoint.

    Returns:
        `native`, if both have the same chat template. Otherwise `user-assistant`, and also the chat checkpoint's template, if the
        base checkpoint's tokenizer makes the same tokens of it.
    """
    native = _native(chat)
    if native is None:
        return PairFormats(
            (PLAIN,), {}, (f"The second checkpoint has no chat template that can be used, so both get the format {PLAIN}.",)
        )
    other = _native(base)
    if other is not None and _ids(other) == _ids(native):
        return PairFormats((NATIVE,))
    text = NativeTemplate().template(chat)
    owned, lent = (prompt_format(text, _Owner(tokenizer)) for tokenizer in (chat, base))
    if _ids(owned) != _ids(native):
        why = "its tokenizer adds other tokens at the start of a text than at the start of a chat"
    elif _ids(lent) != _ids(native):
        why = "the first checkpoint's tokenizer makes other tokens of it"
    else:
        return PairFormats((PLAIN, TEMPLATE), {TEMPLATE: text})
    return PairFormats(
        (PLAIN,), {}, (f"Both get the format {PLAIN}. The second checkpoint's chat template cannot be shared, because {why}.",)
    )


def _native(tokenizer: Any) -> Prompt | None:
    try:
        return prompt_format(NATIVE, _Owner(tokenizer))
    except InputError:
        return None


def _ids(prompt: Prompt) -> list[list[int]]:
    return prompt.encode(_PROBES)
