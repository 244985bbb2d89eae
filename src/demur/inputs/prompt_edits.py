"""Small edits of a prompt format that change its spelling and not what it asks: spaces, newlines, capitals, the system turn.

A format with such an edit is called `format~edit`, as in `chatml~newline`. Results that change under these edits depend on how
the prompt happens to be written.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from demur.core.errors import InputError, nearest
from demur.inputs.prompt_formats import NATIVES, SLOT, SYSTEM_SLOT, WITH_SYSTEM, find_format

MARK = "~"
"""Separates the name of a format from the edit in the name of an edited format. No other name has it."""

SYSTEM_SENTENCE = "You are a helpful assistant."
"""What the edit `system` writes into the system turn."""

EDITS: Mapping[str, str] = {
    "spaces": "two spaces before the instruction",
    "newline-before": "a newline before the instruction",
    "newline": "a newline after the instruction",
    "capitals": "role words in capitals, or in small letters if they have capitals already",
    "system": f'a system turn, "{SYSTEM_SENTENCE}"',
    "empty-system": "a system turn without a sentence",
}
"""The edits, each with what it writes."""

_OF_TEMPLATES = ("spaces", "newline-before", "newline")
"""The edits that every chat template of a tokenizer allows: they touch only what is next to the instruction."""

_TEMPLATES = "demur.inputs.templates.edited_templates"
"""The module of the formats with these edits. It is named here and not imported, because it imports this one."""

_ROLES = "user|assistant|model|human|ai|bot|system|question|answer|instruction|response|task|solution|villain|henchman|[abq]"
_ROLE = re.compile(rf"(?:(?<=\n)|(?<=>)|(?<=# )|^)(?:{_ROLES})(?=:|\n|<|$)", re.IGNORECASE)
"""A role word: the first word of a line or after a control token, with nothing but its end behind it."""


@dataclass(frozen=True)
class FormatSpec:
    """A prompt format as `find_system_format` takes it.

    Attributes:
        spec: a name, a text with `{instruction}`, or `module:attribute`.
        system: its system sentence; None for none.
    """

    spec: str
    system: str | None = None


def split_edit(name: str) -> tuple[str, str]:
    """The name of the format and the edit; the edit is empty for a format as it is.

    Example:
        >>> split_edit("chatml~newline"), split_edit("chatml")
        (('chatml', 'newline'), ('chatml', ''))
    """
    if SLOT in name:
        return name, ""
    base, _, edit = name.partition(MARK)
    return base, edit


def is_edited(name: str) -> bool:
    """Whether a name is that of a format with a small edit."""
    return bool(split_edit(name)[1])


def edited(form: FormatSpec, edit: str) -> FormatSpec | None:
    r"""A format with a small edit.

    Args:
        form: the format.
        edit: one of `EDITS`.

    Returns:
        The edited format; None if the edit would change nothing in it, or cannot be made.

    Raises:
        InputError: for an unknown edit, with the nearest known one; for an unknown format.

    Example:
        >>> edited(FormatSpec("pythia"), "capitals").spec
        'USER: {instruction}\nASSISTANT:'
        >>> edited(FormatSpec("pythia"), "system") is None
        True
    """
    if edit not in EDITS:
        raise InputError(f"{edit!r} is not a small edit of a prompt format; {nearest(edit, EDITS)}")
    found = find_format(form.spec)
    if not isinstance(found, str):
        known = form.spec in NATIVES and edit in _OF_TEMPLATES
        return FormatSpec(f"{_TEMPLATES}:{_attribute(form.spec, edit)}", form.system) if known else None
    text = WITH_SYSTEM.get(found, found) if form.system is not None else found
    changed = _with_system_turn(text, form.system, edit) if edit in ("system", "empty-system") else edited_text(text, edit)
    if changed is None or changed == text:
        return None
    return FormatSpec(changed, form.system if SYSTEM_SLOT in changed else None)


def edited_text(text: str, edit: str) -> str:
    """A prompt text with an edit that is not one of the system turn; the text itself if there is nothing to change.

    Args:
        text: a text with `{instruction}`.
        edit: `spaces`, `newline-before`, `newline` or `capitals`.
    """
    before, _, after = text.partition(SLOT)
    if edit == "spaces":
        return f"{before.rstrip(' ')}  {SLOT}{after}"
    if edit == "newline-before":
        return f"{before}\n{SLOT}{after}"
    if edit == "newline":
        return f"{before}{SLOT}\n{after}"
    return SLOT.join(_ROLE.sub(_other_case, part) for part in (before, after))


def missing_edits(form: FormatSpec) -> list[str]:
    """The edits that cannot be made in a format, or would change nothing."""
    return [edit for edit in EDITS if edited(form, edit) is None]


def _attribute(spec: str, edit: str) -> str:
    return f"{spec}-{edit}".upper().replace("-", "_")


def _with_system_turn(text: str, system: str | None, edit: str) -> str | None:
    """The text with a system turn that has demur's sentence or none; None if it has a sentence already, or no place for one."""
    place = WITH_SYSTEM.get(text, text)
    if SYSTEM_SLOT not in place:
        return None
    # Vicuna's text holds a sentence of its own, so it is not the end of the text with a place for one.
    holds_one = system is not None or not place.endswith(text)
    if edit == "system":
        return None if holds_one else place.replace(SYSTEM_SLOT, SYSTEM_SENTENCE)
    return place.replace(SYSTEM_SLOT, "").lstrip("\n")


def _other_case(word: re.Match[str]) -> str:
    return word[0].lower() if word[0].isupper() else word[0].upper()
