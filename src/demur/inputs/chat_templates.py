"""The prompt formats `native` and `native-no-thinking`: the chat template that comes with a tokenizer, written out as a text.

The template is rendered with a marker, which `{instruction}` then replaces. So a native format becomes an ordinary text format.
"""

from typing import Any

from demur.core.errors import InputError
from demur.inputs.prompt_formats import FORMATS, NATIVE, NO_THINKING, SLOT


class NativeTemplate:
    """The tokenizer's chat template, with one user turn and the beginning of the answer."""

    # The template writes them itself.
    adds_special_tokens: bool = False

    def template(self, tokenizer: Any) -> str:
        """The text with `{instruction}`.

        Raises:
            InputError: for a tokenizer without a chat template, and for a template that does not show the instruction once.
        """
        _require_template(tokenizer)
        return _rendered(tokenizer)


class NativeNoThinking(NativeTemplate):
    """The same with `enable_thinking` off, for a template that otherwise lets the model think before it answers."""

    def template(self, tokenizer: Any) -> str:
        """The text with `{instruction}`.

        Raises:
            InputError: as for `native`, and if the template never lets a model think.
        """
        _require_template(tokenizer)
        if not can_think(tokenizer):
            raise InputError(
                f"this chat template lets no model think unless it is asked to, so {NO_THINKING!r} is {NATIVE!r}; use that"
            )
        return _rendered(tokenizer, enable_thinking=False)


def can_think(tokenizer: Any) -> bool:
    """Whether the chat template lets a model think before it answers, unless `enable_thinking` is off."""
    named = "enable_thinking" in _chat_template(tokenizer)
    return named and _rendered(tokenizer) != _rendered(tokenizer, enable_thinking=False)


def is_dated(tokenizer: Any) -> bool:
    """Whether the chat template writes today's date into the prompt."""
    return "strftime_now" in _chat_template(tokenizer)


def _chat_template(tokenizer: Any) -> str:
    return str(getattr(tokenizer, "chat_template", None) or "")


def _require_template(tokenizer: Any) -> None:
    if not _chat_template(tokenizer):
        raise InputError(
            "this tokenizer has no chat template, as is usual for base checkpoints; "
            f"choose a prompt format ({', '.join(FORMATS)}) or give a text with {SLOT}"
        )


def _rendered(tokenizer: Any, **switches: bool) -> str:
    # The marker has no braces, because a template may treat braces in a special way.
    marker = "demurinstructionmarker"
    turns = [{"role": "user", "content": marker}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **switches)
    if text.count(marker) != 1:
        raise InputError(f"the tokenizer's chat template shows the instruction {text.count(marker)} times; once is expected")
    return str(text).replace(marker, SLOT)
