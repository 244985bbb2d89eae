"""Names of prompt formats: short, readable, and usable in file names.

A text that has no name of its own gets one from its words, so that tables say `question-answer` and not a hash.
"""

import hashlib
import re
from collections.abc import Collection

from demur.core.registry import is_short_name, registry
from demur.inputs.prompt_edits import MARK, is_edited, split_edit
from demur.inputs.prompt_formats import FORMATS, NAME_BYTES, SLOT, SYSTEM_SLOT, find_format

_MARK = re.compile(r"<[^<>\s]*>|\[/?[A-Z]+\]")
"""A control token such as `<|im_start|>` or `[INST]`. Its letters are no words."""

_WORD = re.compile(r"[A-Za-z0-9]+")
_WORD_LETTERS, _NAME_LETTERS = 12, 32
"""The most letters of a word and of a format's name in a longer name."""

_PLAIN_WORDS = frozenset(["a", "an", "and", "are", "as", "be", "i", "in", "is", "it", "of", "s", "the", "to", "you", "your"])
"""Words of a system sentence that tell little."""


def is_text(spec: str) -> bool:
    """Whether a format is given as a text with `{instruction}`, not by its name."""
    return SLOT in spec and spec not in registry("prompt")


def format_name(spec: str) -> str:
    r"""A short name for a format, which can be a part of file names.

    Args:
        spec: a registered name, a text with `{instruction}`, or `module:attribute`; also with a small edit, as `name~edit`.

    Returns:
        The name that demur ships a text under, or one from the words of the text. A name with characters other than letters,
        digits, `-` and `_`, or a long one, has these replaced, and a hash of the name added.

    Example:
        >>> format_name("Q: {instruction}\nA:"), format_name("USER: {instruction}\nASSISTANT:"), format_name("chatml")
        ('q-a', 'user-assistant', 'chatml')
    """
    if is_edited(spec):
        base, edit = split_edit(spec)
        return f"{format_name(base)}{MARK}{edit}"
    if is_text(spec):
        found = str(find_format(spec))
        return shipped_name(found) or readable_name(found, registry("prompt").names())
    if is_short_name(spec) and len(spec.encode()) <= NAME_BYTES:
        return spec
    readable = re.sub(r"[^A-Za-z0-9_]+", "-", spec).strip("-")[:40]
    return f"{readable}-{hashlib.sha256(spec.encode()).hexdigest()[:6]}".lstrip("-")


def shipped_name(text: str) -> str | None:
    """The name of the format that ships with demur and has exactly this text; None if there is none."""
    return next((name for name, shipped in FORMATS.items() if shipped == text), None)


def readable_name(text: str, taken: Collection[str]) -> str:
    r"""A name for a format from its text: the last word before the instruction, and the last word after it.

    Args:
        text: a text with `{instruction}`.
        taken: names that other formats have.

    Returns:
        A name that is not taken; a number at its end makes it so.

    Example:
        >>> readable_name("### Instruction:\n{instruction}\n\n### Response:\n", [])
        'instruction-response'
        >>> readable_name("Q: {instruction}\nA:", ["q-a"])
        'q-a-2'
    """
    before, _, after = text.replace(SYSTEM_SLOT, " ").partition(SLOT)
    ends = [words[-1][:_WORD_LETTERS].lower() for part in (before, after) if (words := _words(part))]
    name = "-".join(dict.fromkeys(ends)) or ("text" if text.replace(SLOT, "").strip() else "bare")
    # A null direction is called `random-1`, and no format may have such a name.
    name = f"text-{name}" if name.split("-")[0] in registry("control") else name
    return _free(name, taken)


def system_name(name: str, system: str, taken: Collection[str] = ()) -> str:
    """A name for a format with a system sentence: the format's name, and the first two telling words of the sentence.

    Args:
        name: the format's name.
        system: the sentence.
        taken: names that other formats have.

    Returns:
        A name that is not taken.

    Example:
        >>> system_name("native", "You are a helpful, honest assistant.")
        'native-helpful-honest'
    """
    words = [word[:_WORD_LETTERS] for word in _WORD.findall(system.lower()) if word not in _PLAIN_WORDS]
    return _free("-".join((name[:_NAME_LETTERS], *(words[:2] or ["system"]))), taken)


def _free(name: str, taken: Collection[str]) -> str:
    """The name, with a number at its end if another format has it."""
    known = {each.casefold() for each in taken}
    numbered = (name if n == 1 else f"{name}-{n}" for n in range(1, len(known) + 2))
    return next(each for each in numbered if each.casefold() not in known)


def earlier_name(spec: str) -> str:
    """The name of a format in run folders of earlier versions, which named a text by its hash: `text-322469`."""
    return "text-" + hashlib.sha256(str(find_format(spec)).encode()).hexdigest()[:6] if is_text(spec) else format_name(spec)


def _words(text: str) -> list[str]:
    """The words of a text. Those of control tokens count only if there are no others."""
    return _WORD.findall(_MARK.sub(" ", text)) or _WORD.findall(text)
