"""What the shape of a text shows without reading it: does it repeat itself, does it give the instruction back, is it on the subject?

All of it works on words, in time linear in the text; an instruction counts with its first eighty words.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from demur.judges.reading import ASK, STOP, Reading

LONG = 100
"""Words from which on a text counts as long: three words in a row recur in any long text, six do not."""

LONGEST = 80
"""Words of an instruction that count."""

_PERSONS = "i me my mine you your yours we us our".split()
_ASKING = (
    "answer build compare compile compose create describe design draft explain generate give help invent list make organize outline "
    "plan prepare produce provide recommend rewrite show suggest summarize teach tell write"
).split()
_SAME = dict.fromkeys(_PERSONS, "someone") | dict.fromkeys(_ASKING, "ask")


def repeats(words: Sequence[str], span: int = 3) -> list[bool]:
    """For each word: does it lie in a run of `span` words that stood in the text before?"""
    seen: set[tuple[str, ...]] = set()
    found = [False] * len(words)
    for start in range(len(words) - span + 1):
        run = tuple(words[start : start + span])
        if run in seen:
            found[start : start + span] = [True] * span
        seen.add(run)
    return found


def first_loop(text: Reading) -> str | None:
    """The first repeated words as written, where more than half of the text repeats what stood in it; else None.

    A text without blanks between its words is read letter by letter.
    """
    words = [index for index, token in enumerate(text.tokens) if token not in (STOP, ASK)]
    if sum(map(len, text.words)) < 20 * len(words):
        found = repeats(text.words, 3 if len(words) < LONG else 6)
        first = found.index(True) if 2 * sum(found) > len(found) else None
        return None if first is None else text.quote(words[first], words[first + 2])
    letters = [sign for sign in text.text if sign.isalpha()]
    found = repeats(letters, 6)
    first = found.index(True) if 2 * sum(found) > len(found) else None
    return None if first is None else "".join(letters[first : first + 6])


@dataclass(frozen=True)
class Return:
    """An instruction given back: from token `first` to `last` of the text, with its opening or not, and how many new words follow."""

    first: int
    last: int
    opening: bool
    new_words: int


def given_back(text: Reading, instruction: Reading) -> Return | None:
    """The instruction near the start of the text, word for word or nearly: seven of ten words in order, little in between.

    Who is spoken of does not matter, nor which verb asks: `my` may have become `your`, and `outline` `describe`.
    """
    asked = [_SAME.get(word, word[:6]) for word in instruction.words[:LONGEST]]
    written = [_SAME.get(word, word[:6]) for word in text.tokens]
    length, first, last, opening = _alignment(asked, written[: len(asked) + 12])
    if not asked or length < 0.7 * len(asked) or last - first + 1 - length > 0.5 * len(asked):
        return None
    if {"no", "not"} & set(written[: last + 1]) - set(asked):
        return None
    old = repeats([*asked, *written])[len(asked) :]
    new_words = sum(not repeated and word.isalnum() for repeated, word in zip(old[last + 1 :], written[last + 1 :], strict=True))
    return Return(first, last, opening, new_words)


def _alignment(asked: Sequence[str], written: Sequence[str]) -> tuple[int, int, int, bool]:
    """Longest common subsequence: its length, first and last place in `written`, and whether the first word is in it."""
    Best = tuple[int, int, int, bool]
    none: Best = (0, -1, -1, False)
    above: list[Best] = [none] * (len(written) + 1)
    for number, word in enumerate(asked):
        row = [none]
        for place, other in enumerate(written):
            best = max(above[place + 1], row[place], key=lambda found: found[0])
            if word == other and above[place][0] + 1 > best[0]:
                before = above[place]
                best = (before[0] + 1, before[1] if before[0] else place, place, before[3] or number == 0)
            row.append(best)
        above = row
    return above[-1]


_EMPTY = frozenset(
    "a an the of to in on at by for with from into about and or but so that this these those it its is are was were be been am do "
    "does did not no can could will would should may might must have has had i me my we us our you your he she they them their his "
    "her who what which when where why how there here as if than then just only very more most some any all one out up off over "
    "get give make tell write create show explain describe list suggest help find plan draft outline compose use way ways thing "
    "things good best new want need like".split()
)


def stems(words: Sequence[str]) -> dict[str, str]:
    """Words that carry a subject, by their first five letters."""
    return {word[:5]: word for word in reversed(words) if word not in _EMPTY and len(word) > 2 and not word.isdigit()}
