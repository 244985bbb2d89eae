"""What people hand to the functions of the library: a prompt format, a checkpoint and instructions, each in its usual forms.

A form that has one meaning is taken. Any other is refused in one sentence that says what to write.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from demur.core.errors import InputError
from demur.inputs.conversations import content_text
from demur.inputs.prompts import Prompt, Tokenized, prompt_format

Message = Mapping[str, object]
"""One turn of a conversation: `{"role": "user", "content": ...}`."""

PromptLike = Prompt | str
"""A bound prompt format, or what `demur.prompt_format` makes one from: a name, or a text with `{instruction}`."""

Instructions = Sequence[str] | Sequence[Message] | Sequence[Sequence[Message]]
"""Texts; or conversations, each with one turn, of the user. The messages of one conversation count as one instruction."""


def bound_prompt(prompt: PromptLike, checkpoint: Tokenized) -> Prompt:
    """The prompt format with a checkpoint's tokenizer.

    Args:
        prompt: a prompt format, its name, or a text with `{instruction}`.
        checkpoint: the checkpoint.

    Returns:
        The prompt format; a bound one is returned as it is.

    Raises:
        InputError: if the checkpoint is none, such as a transformers model; for an unknown format; and for any other object.
    """
    check_checkpoint(checkpoint)
    if isinstance(prompt, str):
        return prompt_format(prompt, checkpoint)
    if not hasattr(prompt, "encode") or not hasattr(prompt, "template"):
        raise InputError(
            f"the prompt format is a {type(prompt).__name__}; expected demur.prompt_format(...), the name of a format such as "
            "'chatml' or 'native', or a text with {instruction}"
        )
    return prompt


def check_checkpoint(checkpoint: object) -> None:
    """Check that an object is a checkpoint.

    Raises:
        InputError: if it is something else, with how to make a checkpoint from it.
    """
    if hasattr(checkpoint, "engine_for"):
        return
    if isinstance(checkpoint, str):
        raise InputError(
            f"the checkpoint is the text {checkpoint[:60]!r}; load it first: demur.load_checkpoint({checkpoint[:60]!r})"
        )
    kind = type(checkpoint).__name__
    if hasattr(checkpoint, "tokenizer") and hasattr(checkpoint, "model"):
        raise InputError(f"the checkpoint is a {kind}; expected a checkpoint: demur.wrap(it.model, it.tokenizer)")
    if hasattr(checkpoint, "config") and hasattr(checkpoint, "forward"):
        raise InputError(f"the checkpoint is a {kind}, a model without its tokenizer; give demur.wrap(model, tokenizer)")
    raise InputError(f"the checkpoint is a {kind}; expected what demur.load_checkpoint or demur.wrap returns")


def instruction_list(given: Any, what: str = "instructions") -> Sequence[str]:
    """Instructions as a list of texts.

    Args:
        given: a list of texts; a list of messages with one turn, of the user; or a list of such lists.
        what: what they are called in messages, in the plural.

    Returns:
        The texts. A list or tuple of texts is returned as it is.

    Raises:
        InputError: for one text, a table, an instruction set, a conversation of more than one turn, and for items that are
            neither texts nor messages.
    """
    _check_is_list(given, what)
    items = given if isinstance(given, list | tuple) else list(given)
    if items and all(isinstance(item, Mapping) for item in items):
        return [_only_request(items, what)]
    texts = [item if isinstance(item, str) else _request(item, what) for item in items]
    return items if all(isinstance(item, str) for item in items) else texts


def bound_pair(
    checkpoint: Tokenized, harmful: Instructions, harmless: Instructions, prompt: PromptLike
) -> tuple[Prompt, Sequence[str], Sequence[str]]:
    """The prompt format and both kinds of instructions, as `bound_prompt` and `instruction_list` give them."""
    bound = bound_prompt(prompt, checkpoint)
    return bound, instruction_list(harmful, "harmful instructions"), instruction_list(harmless, "harmless instructions")


def _check_is_list(given: object, what: str) -> None:
    if isinstance(given, str):
        raise InputError(
            f"{what} are one text, not a list of texts; give [text], or demur.load_instructions(...).all() for a file or a set"
        )
    if isinstance(given, Mapping):
        raise InputError(f"{what} are one {type(given).__name__}, not a list of texts; give [text], or a list of messages")
    if hasattr(given, "columns"):
        # A table gives the names of its columns when one goes through it.
        raise InputError(f"{what} are a table, not a list of texts; give one of its columns, such as list(table['instruction'])")
    if not isinstance(given, Iterable):
        raise InputError(
            f"{what} are of type {type(given).__name__}, not a list of texts; give [text], or demur.load_instructions(...).all()"
        )


def _request(item: object, what: str) -> str:
    if isinstance(item, list | tuple) and item and all(isinstance(turn, Mapping) for turn in item):
        return _only_request(item, what)
    found = f"the {type(item).__name__} {str(item)[:40]!r}"
    raise InputError(f"{what} hold {found}; expected texts, or conversations of one user turn each")


def _only_request(turns: Sequence[Message], what: str) -> str:
    """The text of the only turn of a conversation."""
    roles = [str(turn.get("role")) for turn in turns]
    if roles != ["user"]:
        raise InputError(
            f"{what} hold a conversation with the turns {', '.join(roles)}; expected exactly one user turn. For several "
            "instructions give a list of texts, or a list of conversations"
        )
    text = content_text(turns[0].get("content"))
    if text is None:
        raise InputError(f"{what} hold a user turn whose content is not text; expected a text, or parts of type text")
    return text
