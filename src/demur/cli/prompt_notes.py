"""Notes of the commands `generate` and `extract` about prompts and thoughts, on standard error."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from demur.cli.printing import note
from demur.core.errors import InputError
from demur.core.thought_marks import begins_thought, thought_at_end

if TYPE_CHECKING:
    from demur.engine.generate import Completion
    from demur.inputs.prompts import Prompt


def control_tokens_of(given: str) -> "Literal['text', 'tokens']":
    """The value of `--control-tokens`. Raises `InputError` for another one."""
    if given not in ("text", "tokens"):
        raise InputError(f"--control-tokens is {given!r}; it must be text or tokens")
    return "text" if given == "text" else "tokens"


def system_of(text: str | None) -> str | None:
    r"""The system sentence of `--system`, in which `\n` is understood as a new line."""
    return None if text is None else text.replace("\\n", "\n")


def tell_prompts(form: "Prompt", instructions: Sequence[str]) -> None:
    """Say what is unexpected about the prompts: control tokens held as text, and a tokenizer whose files disagree."""
    from demur.models.tokenizers import notes_of

    for text in (form.marks_note(instructions), *(f"the tokenizer: {one}" for one in notes_of(form.tokenizer))):
        if text:
            note(text)


def tell_template_thoughts(spec: str, form: "Prompt") -> None:
    """Say that the chat template lets the model think before it answers, if it does."""
    from demur.inputs.prompt_formats import NATIVE
    from demur.inputs.templates.thinking import thinking_of

    found = thinking_of(form.tokenizer) if spec == NATIVE else None
    if found is not None and found.sure:
        note(f"the first tokens are thoughts, because {found.why}; {found.way_out}")


def tell_written_thoughts(rows: "Sequence[Completion]") -> None:
    """Say how many completions begin with a thought, as their texts and prompts show."""
    n = sum(
        begins_thought(row.text if row.own_turn is None else row.own_turn) or bool(thought_at_end(row.prompt)) for row in rows
    )
    if n:
        note(f"{n} of {len(rows)} completions begin with a thought; the judges prefix and substring judge the thought")
