"""Instructions that are the same but for case, white space or their Unicode form.

A rate counts different instructions: a repeated one says nothing new, but it would narrow the interval, and one that is in two
splits would be tested on what a direction was made from.
"""

import unicodedata
from collections.abc import Hashable, Iterable, Sequence

from demur.core.errors import short

# Zero-width space, soft hyphen, word joiner and byte order mark: they are not seen, and are no white space.
_UNSEEN = dict.fromkeys((0x200B, 0xAD, 0x2060, 0xFEFF))


def sameness(text: str) -> str:
    r"""A text that equal instructions share: composed letters, one space for any white space, no case, no unseen characters.

    Compatibility forms stay different, because they may change what is asked: a raised 2 is not a 2.

    Example:
        >>> sameness("Cafe\u0301  OPEN?") == sameness("caf\u00e9 open?")
        True
        >>> sameness("What is 2\u00b2?") == sameness("What is 22?")
        False
    """
    return " ".join(unicodedata.normalize("NFC", unicodedata.normalize("NFC", text.translate(_UNSEEN)).casefold()).split())


def first_of_each(keys: Sequence[Hashable]) -> list[int]:
    """The places at which a value occurs for the first time, in order."""
    first: dict[Hashable, int] = {}
    for place, key in enumerate(keys):
        first.setdefault(key, place)
    return list(first.values())


def repeats_note(texts: Sequence[str], kept: Sequence[int], where: str) -> str | None:
    """A sentence that tells that repeated instructions are used once; None if all are different.

    Args:
        texts: the instructions of a file.
        kept: the places of those that are used.
        where: the name of the file.
    """
    if len(kept) == len(texts):
        return None
    there = set(kept)
    example = next(text for place, text in enumerate(texts) if place not in there)
    return (
        f"{len(texts) - len(kept)} of {len(texts)} instructions of {where!r} repeat an earlier one, exactly or but for case, "
        f"white space or Unicode form, such as {short(example)!r}; each is used once"
    )


def shared_note(parts: Iterable[tuple[str, Iterable[str]]], where: str, what: str) -> str | None:
    """A sentence that tells that parts of a set share instructions; None if they do not.

    Args:
        parts: the name of each part, with its instructions.
        where: the name of what they are parts of.
        what: what the parts are, such as "split".
    """
    seen: dict[str, str] = {}
    shared: dict[str, str] = {}
    for name, texts in parts:
        for text in texts:
            key = sameness(text)
            if seen.setdefault(key, name) != name:
                shared.setdefault(key, text)
    if not shared:
        return None
    number = "1 instruction is" if len(shared) == 1 else f"{len(shared)} instructions are"
    return f"{number} in more than one {what} of {where}, such as {short(next(iter(shared.values())))!r}"
