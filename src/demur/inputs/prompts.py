"""Turns instructions into token ids with a prompt format and a tokenizer, and finds the token at the position that is read.

This is the only module that turns text into token ids. At the start of a prompt it adds the tokens that the tokenizer itself adds
there (one BOS token, if the family has one). It adds nothing at the end, and refuses a doubled BOS. Prompts are not truncated, so
the end of a template is never cut off.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, get_args, runtime_checkable

from demur.core.errors import InputError
from demur.core.html_repr import shortened
from demur.core.registry import reason_of
from demur.inputs.control_marks import ControlTokens, TextTokenizer, control_marks, held, marks_sentence, text_tokenizer
from demur.inputs.format_names import format_name, system_name
from demur.inputs.prompt_formats import SLOT, RenderedFormat, find_system_format
from demur.inputs.templates.template_rendering import WAY_OUT, template_source, with_slot

ORDINARY = ("Tell me a joke.", "how do I bake a cake?")
"""Instructions that a template shows as they are, unless it changes every instruction."""


@runtime_checkable
class Tokenized(Protocol):
    """Anything with a tokenizer, usually a checkpoint."""

    @property
    def tokenizer(self) -> Any:
        """A transformers tokenizer."""
        ...


@dataclass(frozen=True)
class Prompt:
    r"""A prompt format bound to a tokenizer. Make one with `demur.prompt_format`.

    Attributes:
        name: the name of the format.
        template: its text with `{instruction}`; a chat template is written out.
        adds_special_tokens: whether the tokenizer adds its special tokens at the start.
        tokenizer: a transformers tokenizer.
        embedding_rows: the number of rows of the checkpoint's embedding; None if it is not known.
        rendering: makes the prompt of one instruction; None if the instruction is put into `template`.
        control_tokens: whether control tokens that an instruction holds stay `text`, or become `tokens` as in published code.

    Example:
        >>> from types import SimpleNamespace
        >>> import demur
        >>> checkpoint = SimpleNamespace(tokenizer=None)  # what demur.load_checkpoint returns
        >>> demur.prompt_format("user-assistant", checkpoint).text("Write a poem.")
        'USER: Write a poem.\nASSISTANT:'
    """

    name: str
    template: str
    adds_special_tokens: bool
    tokenizer: Any
    embedding_rows: int | None = None
    rendering: Callable[[str], str] | None = None
    control_tokens: ControlTokens = "text"

    def __repr__(self) -> str:
        return f"Prompt({self.name!r}, {self.template!r})"

    def text(self, instruction: str) -> str:
        """The prompt as the model sees it, without the special tokens that the tokenizer adds at the start.

        Raises:
            InputError: if the chat template cannot be rendered with this instruction.
        """
        return "".join(self._parts(instruction))

    def _parts(self, instruction: str) -> tuple[str, str, str]:
        """The prompt in three parts: the format's text, the instruction as the prompt shows it, and the format's text again."""
        before, _, after = self.template.partition(SLOT)
        if self.rendering is None:
            return before, instruction, after
        shown = self.rendering(instruction)
        # The text as it is rendered today. `template` may have an earlier date, because a run keeps its first one.
        today = with_slot(self.rendering)
        first, _, last = today.partition(SLOT)
        if shown.startswith(first) and shown.endswith(last) and len(shown) >= len(first) + len(last):
            middle = shown[len(first) : len(shown) - len(last)]
            if middle.strip().casefold() == instruction.strip().casefold():
                return before, middle, after
        if self.template != today:
            raise InputError(
                f"the chat template writes the date, and treats the instruction {shortened(instruction)!r} in a way of its own, "
                "so its prompt cannot be made with the date on which this run began; give another --out, or --fresh"
            )
        own = instruction.strip()
        if own and shown.count(own) == 1:
            place = shown.index(own)
            return shown[:place], own, shown[place + len(own) :]
        # The instruction cannot be told from the format's own text.
        return shown, "", ""

    def encode(self, instructions: Sequence[str]) -> list[list[int]]:
        """Token ids of prompts.

        Args:
            instructions: the instructions.

        Returns:
            The token ids of each prompt, including special tokens at the start.

        Raises:
            InputError: for a doubled BOS token, a prompt without tokens, a token for which the embedding has no row, an
                instruction with which the chat template cannot be rendered, a control token that cannot be kept as text, and if
                `instructions` is not a sequence of texts.
        """
        # In Python a text is also a sequence of texts, one for each letter.
        if not isinstance(instructions, Iterable) or isinstance(instructions, str):
            given = "one text" if isinstance(instructions, str) else f"of type {type(instructions).__name__}"
            raise InputError(f"instructions are {given}, not a list of texts; give [text], or load_instructions(...).all()")
        return self._encoded([(instruction, "") for instruction in instructions])

    def _encoded(self, wanted: Sequence[tuple[str, str]]) -> list[list[int]]:
        """Token ids of prompts, each of an instruction and a text after the prompt."""
        texts = [self.text(instruction) + text for instruction, text in wanted]
        found = self._ids(texts)
        for place, (instruction, text) in enumerate(wanted):
            if self.control_tokens == "text" and self.marks_in([instruction]):
                found[place] = self._ids_as_text(instruction, text)
        return [self._checked(ids, text) for ids, text in zip(found, texts, strict=True)]

    def _ids(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        plain = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        full = self.tokenizer(texts)["input_ids"] if self.adds_special_tokens else plain
        return [_in_front(f, p) for f, p in zip(full, plain, strict=True)]

    def _ids_as_text(self, instruction: str, text: str) -> list[int]:
        """Token ids of a prompt, and of a text after it, in which the instruction's control tokens stay text."""
        before, middle, after = self._parts(instruction)
        if not middle:
            raise InputError(
                f"the instruction {shortened(instruction)!r} holds a control token as text, and the chat template changes the "
                "instruction, so that it cannot be told from the template's own control tokens; leave it out, or set "
                "control_tokens to 'tokens' (--control-tokens tokens)"
            )
        ids = self._text_tokenizer.ids(before, middle, after + text)
        example = self.tokenizer("a", add_special_tokens=False)["input_ids"]
        added = self._ids(["a"])[0][: -len(example) or None] if self.adds_special_tokens else []
        return ids if ids[: len(added)] == added else added + ids

    @cached_property
    def _text_tokenizer(self) -> TextTokenizer:
        return text_tokenizer(self.tokenizer, self._marks)

    @cached_property
    def _marks(self) -> tuple[str, ...]:
        written = self.template if self.rendering is None else template_source(self.tokenizer)
        return control_marks(self.tokenizer, written)

    def marks_in(self, instructions: Sequence[str]) -> dict[str, int]:
        """The control tokens that instructions hold as text, and how many instructions hold each."""
        return held(self._marks, instructions)

    def marks_note(self, instructions: Sequence[str]) -> str:
        """One sentence about the control tokens that instructions hold as text; empty if none does."""
        return marks_sentence(self.marks_in(instructions), len(instructions), self.control_tokens)

    def _checked(self, ids: list[int], text: str) -> list[int]:
        if not ids:
            raise InputError(f"prompt format {self.name!r} gives no tokens for {text!r}")
        if bos_count(ids, self.tokenizer) > 1:
            raise InputError(
                f"prompt format {self.name!r} begins with {bos_count(ids, self.tokenizer)} BOS tokens "
                f"({self.tokenizer.bos_token!r}); leave it out of the template, because the tokenizer adds one"
            )
        beyond = next((i for i in ids if self.embedding_rows is not None and i >= self.embedding_rows), None)
        if beyond is not None:
            token = self.tokenizer.convert_ids_to_tokens([beyond])[0]
            raise InputError(
                f"prompt format {self.name!r} makes a prompt with the token {token!r}, whose id is {beyond}, but the embedding "
                f"of this checkpoint has {self.embedding_rows} rows, so the token was added to the tokenizer alone; {WAY_OUT}"
            )
        return ids

    def continued(self, instruction: str, text: str) -> tuple[list[int], list[int]]:
        """Token ids of a prompt and of a text after it, tokenised together.

        Args:
            instruction: the instruction of the prompt.
            text: what comes after the prompt.

        Returns:
            The ids of the prompt and those of the text. A token that crosses the end of the prompt belongs to the text, because
            the prompt alone does not decide it.
        """
        alone = self.encode([instruction])[0]
        whole = self._encoded([(instruction, text)])[0]
        same = next((i for i, (a, b) in enumerate(zip(alone, whole, strict=False)) if a != b), min(len(alone), len(whole)))
        return whole[:same], whole[same:]

    def positions(self) -> tuple[int, ...]:
        """The positions after the instruction, from the first to -1. Each has the same token for all instructions."""
        # The last characters differ in kind, because a tokenizer may merge some of them with the template.
        probes = self.encode(["a", "b?", "cd 1.", "e\n"])
        shortest = min(map(len, probes))
        same = next((i for i in range(1, shortest + 1) if len({ids[-i] for ids in probes}) > 1), shortest + 1)
        return tuple(range(-(same - 1), 0))

    def token_at(self, position: int = -1) -> str:
        """The template's token at a position, as a string, taken from an example prompt.

        Args:
            position: counted from the end of the prompt; -1 is its last token.

        Raises:
            InputError: for a position that not every prompt has.
        """
        ids = self.encode(["x"])[0]
        if not -len(ids) <= position < 0:
            raise InputError(
                f"position {position} is not in every prompt of format {self.name!r}, because some have only {len(ids)} tokens"
            )
        return str(self.tokenizer.convert_ids_to_tokens([ids[position]])[0])

    def token_read(self, position: int) -> str:
        """The token that is read at a position: the template's token, or "a token of the instruction"."""
        return self.token_at(position) if position in self.positions() else "a token of the instruction"

    @property
    def digest(self) -> str:
        """16 hex digits over the template and the special-token policy. Equal prompts have equal digests in every process."""
        facts = [str(self.adds_special_tokens), self.template]
        # Left out at its default, and for templates that only put the instruction in, so that earlier digests stay.
        facts += [] if self.control_tokens == "text" else [self.control_tokens]
        shown = [self.text(instruction) for instruction in ORDINARY]
        facts += [] if shown == [self.template.replace(SLOT, instruction) for instruction in ORDINARY] else shown
        return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def _in_front(full: list[int], plain: list[int]) -> list[int]:
    """The tokens that the tokenizer adds at the start, and then `plain`. Tokens that the tokenizer adds at the end are dropped.

    If `plain` already begins with these tokens, they are not added again.

    Args:
        full: a text's tokens with all the tokens that the tokenizer adds.
        plain: the text's own tokens.
    """
    for start in range(len(full) - len(plain) + 1):
        if full[start : start + len(plain)] == plain:
            return plain if plain[:start] == full[:start] else full[: start + len(plain)]
    return full


def bos_count(ids: Sequence[int], tokenizer: Any) -> int:
    """How many BOS tokens a prompt begins with. Later ones do not count: in ChatML models, BOS may also open later turns."""
    bos = tokenizer.bos_token_id
    count = 0
    while bos is not None and count < len(ids) and ids[count] == bos:
        count += 1
    return count


def prompt_format(
    spec: str,
    checkpoint: Tokenized,
    *,
    name: str | None = None,
    control_tokens: ControlTokens = "text",
    system: str | None = None,
) -> Prompt:
    r"""Bind a prompt format to a checkpoint's tokenizer.

    Args:
        spec: a name (`chatml`, `gemma`, `gemma-base`, `vicuna`, `user-assistant`, `pythia`, `llama3`, `assistant`, `henchman`,
            `neutral-document`, `transcript`, or a registered one), `native` for the tokenizer's own chat template,
            `native-no-thinking` for the same without thoughts, a text with `{instruction}` in which `\n` is understood as a new
            line, or `module:attribute`.
        checkpoint: a checkpoint, or anything with a `tokenizer`.
        name: the name of the format in results; if None, its own name, or one made from the words of its text.
        control_tokens: what becomes of control tokens such as `<|im_end|>` that an instruction holds: `text` keeps them as text,
            `tokens` makes them tokens, as published code does.
        system: a system sentence. `native` puts it into a system turn of the chat template; `chatml`, `llama3` and `vicuna` have
            a place for it, and so has a text with `{system}`.

    Returns:
        The prompt format with the tokenizer.

    Raises:
        InputError: for an unknown name, with the nearest known one; for a text without `{instruction}`; for `native` if the
            tokenizer has no chat template; for `native-no-thinking` if the template has no way to turn thinking off; for a system
            sentence if the format or the chat template has no place for it.

    Example:
        >>> from types import SimpleNamespace
        >>> import demur
        >>> checkpoint = SimpleNamespace(tokenizer=None)  # what demur.load_checkpoint returns
        >>> demur.prompt_format("chatml", checkpoint)
        Prompt('chatml', '<|im_start|>user\n{instruction}<|im_end|>\n<|im_start|>assistant\n')
        >>> demur.prompt_format("Q: {instruction} A:", checkpoint, name="short")
        Prompt('short', 'Q: {instruction} A:')
        >>> demur.prompt_format("chatml", checkpoint, system="You are a pirate.").name
        'chatml-pirate'
    """
    if control_tokens not in get_args(ControlTokens):
        raise InputError(f"control_tokens is {control_tokens!r}; it must be 'text' or 'tokens'")
    form, tokenizer = find_system_format(spec, system), checkpoint.tokenizer
    rows: int | None = getattr(checkpoint, "embedding_rows", None)
    called = name or (format_name(spec) if system is None else system_name(format_name(spec), system))
    if isinstance(form, str):
        return Prompt(called, form, True, tokenizer, rows, control_tokens=control_tokens)
    text = form.template(tokenizer)
    if text.count(SLOT) != 1:
        raise InputError(f"the prompt format {spec!r} makes a text with {SLOT} {text.count(SLOT)} times; once is expected")
    rendering = form.rendering(tokenizer) if isinstance(form, RenderedFormat) else None
    return Prompt(called, text, form.adds_special_tokens, tokenizer, rows, rendering, control_tokens)


def whole_text_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of whole texts for a classifier, with every special token that its tokenizer adds, also at the end.

    Args:
        tokenizer: a transformers tokenizer.
        texts: the texts. None of them is cut.
    """
    return [list(ids) for ids in tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]] if texts else []


def chat_text(tokenizer: Any, messages: Sequence[tuple[str, str]]) -> str:
    """A conversation in the tokenizer's chat template, up to where the model is to answer, as text.

    Args:
        tokenizer: a transformers tokenizer.
        messages: (role, content) of each message.

    Raises:
        InputError: if there is no chat template, or if it cannot be rendered.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(
            "the tokenizer has no chat template, which this judge format needs; name the model that the format is for"
        )
    turns = [{"role": role, "content": content} for role, content in messages]
    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    except Exception as error:  # a template raises what it likes
        raise InputError(f"the chat template cannot be rendered for a judge: {reason_of(error)}") from error
