"""How an instruction becomes token ids: text around `{instruction}`, the special tokens in front, the position that is read.

The only file that turns text into token ids. It puts in front what the tokenizer itself puts in front (one BOS where the family
has one), never behind, and refuses a doubled BOS. Nothing is truncated, so a template's tail is never cut.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from demur.core.errors import InputError, nearest

SLOT = "{instruction}"

_VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions.\n"
)

FORMATS: dict[str, str] = {
    # "Base LLMs refuse too" (Kissane et al. 2024), character for character; no system turn, no trailing space.
    "chatml": "<|im_start|>user\n{instruction}<|im_end|>\n<|im_start|>assistant\n",
    "gemma": "<start_of_turn>user\n{instruction}<end_of_turn>\n<start_of_turn>model\n",
    "gemma-base": "<start_of_turn>user:\n{instruction}<end_of_turn>\n<start_of_turn>assistant:\n",
    "vicuna": _VICUNA + "USER: {instruction}\nASSISTANT:",
    "user-assistant": "USER: {instruction}\nASSISTANT:",
    # From the authors' comment on Pythia-12B under the post.
    "pythia": "User: {instruction}\nAssistant:",
}
NATIVE, NO_THINKING = "native", "native-no-thinking"
NATIVES = (NATIVE, NO_THINKING)
"""The tokenizer's own chat template, and the same with `enable_thinking` off where a model would think before it answers."""


@runtime_checkable
class Tokenized(Protocol):
    """What a prompt is bound to: anything with a tokenizer, usually a checkpoint."""

    @property
    def tokenizer(self) -> Any:
        """A transformers tokenizer."""
        ...


@dataclass(frozen=True)
class Prompt:
    """A prompt format bound to a tokenizer. `template` is the text with `{instruction}`, with a native template rendered out."""

    name: str
    template: str
    adds_special_tokens: bool
    tokenizer: Any

    def __repr__(self) -> str:
        return f"Prompt({self.name!r}, {self.template!r})"

    def text(self, instruction: str) -> str:
        """The prompt as the model sees it, without the special tokens that the tokenizer puts in front."""
        return self.template.replace(SLOT, instruction)

    def encode(self, instructions: Sequence[str]) -> list[list[int]]:
        """Token ids of each prompt. Raises `InputError` for a doubled BOS, an empty prompt, and what is no sequence of texts."""
        # One text is a sequence of texts to Python, of one letter each.
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
            raise InputError(f"prompt format {self.name!r} makes no tokens of {text!r}")
        if bos_count(ids, self.tokenizer) > 1:
            raise InputError(
                f"prompt format {self.name!r} begins with {bos_count(ids, self.tokenizer)} BOS tokens "
                f"({self.tokenizer.bos_token!r}); leave it out of the template, the tokenizer adds one"
            )
        return ids

    def continued(self, instruction: str, text: str) -> tuple[list[int], list[int]]:
        """Token ids of a prompt, and of a text behind it, tokenised as one.

        Where a token reaches over the prompt's end, it counts to the text, as the first one that the prompt does not decide.
        """
        alone = self.encode([instruction])[0]
        whole = self._checked(self._ids([self.text(instruction) + text])[0], text)
        same = next((i for i, (a, b) in enumerate(zip(alone, whole, strict=False)) if a != b), min(len(alone), len(whole)))
        return whole[:same], whole[same:]

    def positions(self) -> tuple[int, ...]:
        """The positions behind the instruction, from the first to -1: those whose token no instruction changes."""
        probes = self.encode(["a", "b?", "cd 1.", "e\n"])
        shortest = min(map(len, probes))
        same = next((i for i in range(1, shortest + 1) if len({ids[-i] for ids in probes}) > 1), shortest + 1)
        return tuple(range(-(same - 1), 0))

    def token_at(self, position: int = -1) -> str:
        """The token string at a position that belongs to the template, as read from an example prompt."""
        ids = self.encode(["x"])[0]
        if not -len(ids) <= position < 0:
            raise InputError(
                f"position {position} is not in every prompt of format {self.name!r}: one of {len(ids)} tokens has none"
            )
        return str(self.tokenizer.convert_ids_to_tokens([ids[position]])[0])

    def token_read(self, position: int) -> str:
        """What is read at a position: the template's token, or in words that it is each instruction's own."""
        return self.token_at(position) if position in self.positions() else "a token of the instruction"

    @property
    def digest(self) -> str:
        """16 hex digits over template and policy: equal prompts have equal digests in any process."""
        return hashlib.sha256(f"{self.adds_special_tokens}\n{self.template}".encode()).hexdigest()[:16]


def _in_front(full: list[int], plain: list[int]) -> list[int]:
    """`full` up to the end of `plain` inside it: keeps what the tokenizer puts in front, drops what it appends.

    A template that writes those tokens itself gets no second ones.
    """
    for start in range(len(full) - len(plain) + 1):
        if full[start : start + len(plain)] == plain:
            return plain if plain[:start] == full[:start] else full[: start + len(plain)]
    return full


def bos_count(ids: Sequence[int], tokenizer: Any) -> int:
    """How many BOS tokens a prompt begins with. In ChatML models BOS may also open later turns; those do not count."""
    bos = tokenizer.bos_token_id
    count = 0
    while bos is not None and count < len(ids) and ids[count] == bos:
        count += 1
    return count


def prompt_format(spec: str, checkpoint: Tokenized, *, name: str | None = None) -> Prompt:
    r"""Bind a format: a name in `FORMATS`, `native` for the tokenizer's own chat template, or a text with `{instruction}`.

    `native-no-thinking` is the chat template with `enable_thinking` off. `\n` in a text is understood as a new line. Raises
    `InputError` for an unknown name, a text without `{instruction}`, a tokenizer without a chat template where `native` is asked
    for, and a chat template that lets no model think where that is to be off.
    """
    tokenizer = checkpoint.tokenizer
    if spec in NATIVES:
        return Prompt(name or spec, _native_template(tokenizer, thinking=spec == NATIVE), False, tokenizer)
    return Prompt(name or format_name(spec), template_text(spec), True, tokenizer)


def template_text(spec: str) -> str:
    """The template that a format name or a text stands for. Raises `InputError` as `prompt_format` does."""
    if spec in FORMATS:
        return FORMATS[spec]
    if SLOT not in spec:
        looks_like_text = any(mark in spec for mark in " {}\n<") or "\\n" in spec
        hint = f"a prompt text needs {SLOT}" if looks_like_text else nearest(spec, [*FORMATS, *NATIVES])
        raise InputError(f"{spec!r} is not a prompt format; {hint}")
    if spec.count(SLOT) > 1:
        raise InputError(f"the prompt text holds {SLOT} {spec.count(SLOT)} times; once is expected")
    return spec.replace("\\n", "\n")


def format_name(spec: str) -> str:
    """A short name for a format: its own, or one made of the text's hash."""
    if spec in FORMATS or spec in NATIVES:
        return spec
    return "text-" + hashlib.sha256(template_text(spec).encode()).hexdigest()[:6]


def can_think(tokenizer: Any) -> bool:
    """Does the chat template let a model think before it answers, unless told otherwise by `enable_thinking`?"""
    named = "enable_thinking" in _chat_template(tokenizer)
    return named and _rendered(tokenizer) != _rendered(tokenizer, enable_thinking=False)


def is_dated(tokenizer: Any) -> bool:
    """Does the chat template write today's date into the prompt?"""
    return "strftime_now" in _chat_template(tokenizer)


def _chat_template(tokenizer: Any) -> str:
    return str(getattr(tokenizer, "chat_template", None) or "")


def _native_template(tokenizer: Any, *, thinking: bool) -> str:
    if not _chat_template(tokenizer):
        raise InputError(
            "this tokenizer has no chat template, as is usual for base checkpoints; "
            f"choose a prompt format ({', '.join(FORMATS)}) or give a text with {SLOT}"
        )
    if not thinking and not can_think(tokenizer):
        raise InputError(f"this chat template lets no model think unasked, so {NO_THINKING!r} is {NATIVE!r}; use that")
    return _rendered(tokenizer, **({} if thinking else {"enable_thinking": False}))


def _rendered(tokenizer: Any, **switches: bool) -> str:
    # Rendered around a marker without the slot's braces, in case a template treats them specially.
    marker = "demurinstructionmarker"
    turns = [{"role": "user", "content": marker}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **switches)
    if text.count(marker) != 1:
        raise InputError(f"the tokenizer's chat template shows the instruction {text.count(marker)} times; once is expected")
    return str(text).replace(marker, SLOT)
