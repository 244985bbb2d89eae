"""The prompt formats `native` and `native-no-thinking`: the chat template that comes with a tokenizer.

Each instruction is rendered by itself, because a template may trim an instruction or look at what it says. The text with
`{instruction}`, which results and messages show, is the template rendered with a marker in place of an instruction.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from demur.core.errors import InputError
from demur.inputs.prompt_formats import FORMATS, NATIVE, NO_THINKING, SLOT
from demur.inputs.templates.template_rendering import Rendering, fitting, template_source, with_slot
from demur.inputs.templates.thinking import thinking_of


@dataclass(frozen=True)
class NativeTemplate:
    """The tokenizer's chat template, with one user turn and the beginning of the answer.

    Attributes:
        system: the sentence of a system turn before it; empty for none.
    """

    system: str = ""

    # The template writes the special tokens itself.
    adds_special_tokens: ClassVar[bool] = False

    def with_system(self, system: str) -> Self:
        """The same with a system turn."""
        return replace(self, system=system)

    def template(self, tokenizer: Any) -> str:
        """The text with `{instruction}`.

        Raises:
            InputError: for a tokenizer without a chat template, for a template that cannot be rendered, and for one that does not
                show the instruction exactly once.
        """
        return with_slot(self.rendering(tokenizer))

    def rendering(self, tokenizer: Any) -> Rendering:
        """What renders an instruction.

        Raises:
            InputError: for a tokenizer without a chat template, and for a template without a system turn, if one is wanted.
        """
        _require_template(tokenizer)
        return fitting(tokenizer, self.system)


@dataclass(frozen=True)
class NativeNoThinking(NativeTemplate):
    """The same without thoughts: a switch of the template is turned off, or the thought that it begins is ended at once."""

    def rendering(self, tokenizer: Any) -> Rendering:
        """What renders an instruction. Raises `InputError` as for `native`, and if thinking cannot be turned off."""
        found, plain = thinking_of(tokenizer), super().rendering(tokenizer)
        if found is None or not (found.switches or found.closing):
            raise InputError(
                "this chat template has no switch that turns thinking off, and its prompt begins no thought that could be ended, "
                f"so {NO_THINKING!r} would be the same as {NATIVE!r}; use that"
            )
        return replace(plain, switches=found.switches, closing=found.closing)


def is_dated(tokenizer: Any) -> bool:
    """Whether the chat template writes today's date into the prompt."""
    return "strftime_now" in template_source(tokenizer)


def _require_template(tokenizer: Any) -> None:
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(
            "this tokenizer has no chat template, as is usual for base checkpoints; "
            f"choose a prompt format ({', '.join(FORMATS)}) or give a text with {SLOT}"
        )
