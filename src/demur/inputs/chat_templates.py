"""The prompt formats `native` and `native-no-thinking`: the chat template that comes with a tokenizer, written out as a text.

The template is rendered with a marker as the instruction. `{instruction}` then replaces the marker. So a native format becomes an
ordinary text format.
"""

from typing import Any

from jinja2 import TemplateError

from demur.core.errors import InputError
from demur.inputs.prompt_formats import FORMATS, NATIVE, NO_THINKING, SLOT


class NativeTemplate:
    """The tokenizer's chat template, with one user turn and the beginning of the answer."""

    # The template writes the special tokens itself.
    adds_special_tokens: bool = False

    def template(self, tokenizer: Any) -> str:
        """The text with `{instruction}`.

        Raises:
            InputError: for a tokenizer without a chat template, for a template that cannot be rendered, and for one that does not
                show the instruction exactly once.
        """
        _require_template(tokenizer)
        return _rendered(tokenizer)


class NativeNoThinking(NativeTemplate):
    """The same with `enable_thinking` off, for a template with which a model otherwise thinks before it answers."""

    def template(self, tokenizer: Any) -> str:
        """The text with `{instruction}`.

        Raises:
            InputError: as for `native`, and if a model does not think with this template anyway.
        """
        _require_template(tokenizer)
        if not can_think(tokenizer):
            raise InputError(
                f"a model does not think with this chat template anyway, so {NO_THINKING!r} is the same as {NATIVE!r}; use that"
            )
        return _rendered(tokenizer, enable_thinking=False)


def can_think(tokenizer: Any) -> bool:
    """Whether a model thinks before it answers with this chat template, unless `enable_thinking` is off."""
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
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **switches)
    except TemplateError as error:
        raise InputError(f"the tokenizer's chat template cannot be rendered with one user turn: {error}") from error
    if text.count(marker) != 1:
        raise InputError(f"the tokenizer's chat template shows the instruction {text.count(marker)} times; once is expected")
    return str(text).replace(marker, SLOT)
