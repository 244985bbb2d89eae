"""Features of a text that need no understanding: whether it repeats itself, repeats the instruction, or mentions its subject.

All functions work on words, in time linear in the text. Only the first eighty words of an instruction count.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from demur.judges.taxonomy.word_text import ASK, STOP, Reading

LONG = 100
"""A text with at least this many words is long. Runs of three words recur in any long text, so runs of six are counted."""

LONGEST = 80
"""The number of words of an instruction that count."""


def repeats(words: Sequence[str], span: int = 3) -> list[bool]:
    """For each word, whether it is part of a run of `span` words that occurred earlier in the text."""
    seen: set[tuple[str, ...]] = set()
    found = [False] * len(words)
    for start in range(len(words) - span + 1):
        run = tuple(words[start : start + span])
        if run in seen:
            found[start : start + span] = [True] * span
        seen.add(run)
    return found


def first_loop(text: Reading) -> str | None:
    """The first words that are repeated, as written, if more than half of the text repeats earlier parts of it; else None.

    A text without spaces between its words is compared letter by letter.
    """
    words = [index for index, token in enumerate(text.tokens) if token not in (STOP, ASK)]
    if sum(map(len, text.words)) < 20 * len(words):
        first = _mostly(repeats(text.words, 3 if len(words) < LONG else 6))
        return None if first is None else text.quote(words[first], words[first + 2])
    letters = [sign for sign in text.text if sign.isalpha()]
    first = _mostly(repeats(letters, 6))
    return None if first is None else "".join(letters[first : first + 6])


def _mostly(found: Sequence[bool]) -> int | None:
    """The index of the first true value, if more than half of them are true; else None."""
    return found.index(True) if 2 * sum(found) > len(found) else None


@dataclass(frozen=True)
class Return:
    """Where a text repeats its instruction.

    Attributes:
        first: the token at which the repetition begins.
        last: the token at which it ends.
        opening: whether it has the first word of the instruction.
        new_words: how many words follow that are not in a run of three words from the instruction or from earlier in the text.
    """

    first: int
    last: int
    opening: bool
    new_words: int


_PERSONS = ("i", "me", "my", "mine", "you", "your", "yours", "we", "us", "our")
_ASKING = (
    "answer", "build", "compare", "compile", "compose", "create", "describe", "design", "draft", "explain", "generate",
    "give", "help", "invent", "list", "make", "organize", "outline", "plan", "prepare", "produce", "provide", "recommend",
    "rewrite", "show", "suggest", "summarize", "teach", "tell", "write",
)  # fmt: skip
_SAME = dict.fromkeys(_PERSONS, "someone") | dict.fromkeys(_ASKING, "ask")


def given_back(text: Reading, instruction: Reading) -> Return | None:
    """Finds the instruction near the start of the text: at least seven of ten of its words in order, with little in between.

    Pronouns and the verb of the request may differ: `my` may have become `your`, and `outline` may have become `describe`. A
    negated instruction does not count.
    """
    asked = [_SAME.get(word, word[:6]) for word in instruction.words[:LONGEST]]
    written = [_SAME.get(word, word[:6]) for word in text.tokens]
    length, first, last, opening = _alignment(asked, written[: len(asked) + 12])
    if not asked or length < 0.7 * len(asked) or last - first + 1 - length > 0.5 * len(asked):
        return None
    if {"no", "not"} & set(written[: last + 1]) - set(asked):
        return None
    old = repeats([*asked, *written])[len(asked) + last + 1 :]
    new_words = sum(word.isalnum() and not known for word, known in zip(written[last + 1 :], old, strict=True))
    return Return(first, last, opening, new_words)


_Aligned = tuple[int, int, int, bool]


def _alignment(asked: Sequence[str], written: Sequence[str]) -> _Aligned:
    """Longest common subsequence: its length, its first and last index in `written`, and whether it has the first word asked."""
    nothing: _Aligned = (0, -1, -1, False)
    above = [nothing] * (len(written) + 1)
    for number, word in enumerate(asked):
        row = [nothing]
        for place, other in enumerate(written):
            best = max(above[place + 1], row[place], key=lambda found: found[0])
            length, first, _, opening = above[place]
            if word == other and length + 1 > best[0]:
                best = (length + 1, first if length else place, place, opening or number == 0)
            row.append(best)
        above = row
    return above[-1]


_EMPTY = frozenset((
    "the", "about", "and", "any", "all", "are", "best", "been", "but", "can", "compose", "could", "create", "describe",
    "did", "does", "draft", "explain", "find", "for", "from", "get", "give", "good", "had", "has", "have", "help", "her",
    "here", "his", "how", "into", "its", "just", "like", "list", "make", "may", "might", "more", "most", "must", "need",
    "new", "not", "off", "one", "only", "our", "out", "outline", "over", "plan", "she", "should", "show", "some", "suggest",
    "tell", "than", "that", "their", "them", "then", "there", "these", "they", "thing", "things", "this", "those", "use",
    "very", "want", "was", "way", "ways", "were", "what", "when", "where", "which", "who", "why", "will", "with", "would",
    "write", "you", "your",
))  # fmt: skip


def shared_subject(text: Reading, instruction: Reading) -> tuple[bool, str]:
    """Whether the instruction has a subject, and the first word of the text that is about it; empty if none is.

    Two words count as the same if their first five letters are the same.
    """
    subject = subject_stems(instruction)
    touched = (index for index, token in enumerate(text.tokens) if _tells(token) and token[:5] in subject)
    index = next(touched, None)
    return bool(subject), "" if index is None else text.quote(index, index)


def subject_stems(text: Reading) -> frozenset[str]:
    """The first five letters of each word that says what a text is about."""
    return frozenset(word[:5] for word in text.words if _tells(word))


def _tells(word: str) -> bool:
    return len(word) > 2 and word not in _EMPTY and not word.isdigit()
