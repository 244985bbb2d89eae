"""A tokenizer's own chat template with a small edit next to the instruction, as prompt formats that a plan names by attribute."""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

from demur.inputs.chat_templates import NativeNoThinking, NativeTemplate
from demur.inputs.prompt_edits import edited_text


@dataclass(frozen=True)
class EditedTemplate:
    """A chat template whose text is edited once it has been rendered.

    Attributes:
        edit: the edit.
        form: the template.
    """

    edit: str
    form: NativeTemplate = field(default_factory=NativeTemplate)

    # The template writes the special tokens itself.
    adds_special_tokens: ClassVar[bool] = False

    def with_system(self, system: str) -> Self:
        """The same with a system turn."""
        return replace(self, form=self.form.with_system(system))

    def template(self, tokenizer: Any) -> str:
        """The text with `{instruction}`. Raises `InputError` as the template does."""
        return edited_text(self.form.template(tokenizer), self.edit)


NATIVE_SPACES = EditedTemplate("spaces")
NATIVE_NEWLINE_BEFORE = EditedTemplate("newline-before")
NATIVE_NEWLINE = EditedTemplate("newline")
NATIVE_NO_THINKING_SPACES = EditedTemplate("spaces", NativeNoThinking())
NATIVE_NO_THINKING_NEWLINE_BEFORE = EditedTemplate("newline-before", NativeNoThinking())
NATIVE_NO_THINKING_NEWLINE = EditedTemplate("newline", NativeNoThinking())
