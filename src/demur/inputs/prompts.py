"""Turns instructions into token ids with a prompt format and a tokenizer, and finds the token at the position that is read.

This is the only module that turns text into token ids. At the start of a prompt it adds the tokens that the tokenizer itself adds
there (one BOS token, if the family has one). It adds nothing at the end, and refuses a doubled BOS. Prompts are not truncated, so
the end of a template is never cut off.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from demur.core.errors import InputError
from demur.inputs.prompt_formats import SLOT, find_format, format_name


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

    def __repr__(self) -> str:
        return f"Prompt({self.name!r}, {self.template!r})"

    def text(self, instruction: str) -> str:
        """The prompt as the model sees it, without the special tokens that the tokenizer adds at the start."""
        return self.template.replace(SLOT, instruction)

    def encode(self, instructions: Sequence[str]) -> list[list[int]]:
        """Token ids of prompts.

        Args:
            instructions: the instructions.

        Returns:
            The token ids of each prompt, including special tokens at the start.

        Raises:
            InputError: for a doubled BOS token, a prompt without tokens, and if `instructions` is not a sequence of texts.
        """
        # In Python a text is also a sequence of texts, one for each letter.
        if not isinstance(instructions, Iterable) or isinstance(instructions, str):
            given = "one text" if isinstance(instructions, str) else f"of type {type(instructions).__name__}"
            raise InputError(f"instructions are {given}, not a list of texts; give [text], or load_instructions(...).all()")
        texts = [self.text(instruction) for instruction in instructions]
        return [self._checked(ids, text) for ids, text in zip(self._ids(texts), texts, strict=True)]

    def _ids(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        plain = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        full = self.tokenizer(texts)["input_ids"] if self.adds_special_tokens else plain
        return [_in_front(f, p) for f, p in zip(full, plain, strict=True)]

    def _checked(self, ids: list[int], text: str) -> list[int]:
        if not ids:
            raise InputError(f"prompt format {self.name!r} gives no tokens for {text!r}")
        if bos_count(ids, self.tokenizer) > 1:
            raise InputError(
                f"prompt format {self.name!r} begins with {bos_count(ids, self.tokenizer)} BOS tokens "
                f"({self.tokenizer.bos_token!r}); leave it out of the template, because the tokenizer adds one"
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
        whole = self._checked(self._ids([self.text(instruction) + text])[0], text)
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
        return hashlib.sha256(f"{self.adds_special_tokens}\n{self.template}".encode()).hexdigest()[:16]


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


def prompt_format(spec: str, checkpoint: Tokenized, *, name: str | None = None) -> Prompt:
    r"""Bind a prompt format to a checkpoint's tokenizer.

    Args:
        spec: a name (`chatml`, `gemma`, `gemma-base`, `vicuna`, `user-assistant`, `pythia`, or one that was registered), `native`
            for the tokenizer's own chat template, `native-no-thinking` for the same with `enable_thinking` off, a text with
            `{instruction}` in which `\n` is understood as a new line, or `module:attribute`.
        checkpoint: a checkpoint, or anything with a `tokenizer`.
        name: the name of the format in results; if None, its own name, or one made from the hash of its text.

    Returns:
        The prompt format with the tokenizer.

    Raises:
        InputError: for an unknown name, with the nearest known one; for a text without `{instruction}`; for `native` if the
            tokenizer has no chat template; for `native-no-thinking` if a model does not think with the template anyway.

    Example:
        >>> from types import SimpleNamespace
        >>> import demur
        >>> checkpoint = SimpleNamespace(tokenizer=None)  # what demur.load_checkpoint returns
        >>> demur.prompt_format("chatml", checkpoint)
        Prompt('chatml', '<|im_start|>user\n{instruction}<|im_end|>\n<|im_start|>assistant\n')
        >>> demur.prompt_format("Q: {instruction} A:", checkpoint, name="short")
        Prompt('short', 'Q: {instruction} A:')
    """
    form, tokenizer = find_format(spec), checkpoint.tokenizer
    if isinstance(form, str):
        return Prompt(name or format_name(spec), form, True, tokenizer)
    text = form.template(tokenizer)
    if text.count(SLOT) != 1:
        raise InputError(f"the prompt format {spec!r} makes a text with {SLOT} {text.count(SLOT)} times; once is expected")
    return Prompt(name or format_name(spec), text, form.adds_special_tokens, tokenizer)
