"""A text as plain words with their places, so that rules see simple words and their evidence can be quoted as it was written.

Case, curly apostrophes, quotation marks, markup, commas and line breaks are removed, and short forms are written out: `I can't`
and `**I** cannot` both become `i can not`. The result is words, and a mark at the end of each sentence. This takes time linear in
the length of the text.
"""

import re
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

STOP, ASK = ".", "?"
"""The marks for the end of a sentence."""

_APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u201b\u02bc\u00b4`\u2032\u02b9\uff07", "'"))
_TAG = re.compile(r"</?[A-Za-z][A-Za-z0-9]{0,10}/?>")
_TOKEN = re.compile(
    r"(?P<word>[^\W_]+(?:'[^\W_]+)*)|(?<![.!?\u3002\uff01\uff1f])[.!?\u3002\uff01\uff1f]++(?=[\s\"'\u201d)\]*_]|$)|\n+"
)
_WHOLE = {
    "cannot": ("can", "not"),
    "can't": ("can", "not"),
    "cant": ("can", "not"),
    "won't": ("will", "not"),
    "shan't": ("will", "not"),
    "dont": ("do", "not"),
    "wont": ("will", "not"),
    "couldnt": ("could", "not"),
    "wouldnt": ("would", "not"),
    "isnt": ("is", "not"),
    "doesnt": ("does", "not"),
    "im": ("i", "am"),
    "let's": ("let", "us"),
}
_ENDINGS = {"n't": "not", "'m": "am", "'re": "are", "'ve": "have", "'ll": "will", "'d": "would"}
_IS = frozenset(f"{word}'s" for word in ("it", "that", "this", "here", "there", "what", "who", "where", "how", "he", "she"))


@dataclass(frozen=True)
class Reading:
    """A text as words.

    Attributes:
        text: the text as it was written.
        tokens: its words and the marks at the ends of sentences.
        places: the start and end of each token in `text`. The parts of a short form have the same place.
    """

    text: str
    tokens: tuple[str, ...]
    places: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, text: str) -> "Reading":
        """Divide a text into words."""
        # No replacement changes the length, so the places stay correct.
        even = _TAG.sub(lambda tag: " " * len(tag[0]), text.translate(_APOSTROPHES))
        tokens: list[str] = []
        places: list[tuple[int, int]] = []
        for match in _TOKEN.finditer(even):
            if match["word"]:
                parts = _written_out(match["word"].lower())
            elif tokens and tokens[-1] not in (STOP, ASK):
                parts = (ASK if {"?", "\uff1f"} & set(match[0]) else STOP,)
            else:
                continue
            tokens.extend(parts)
            places.extend([match.span()] * len(parts))
        return cls(text, tuple(tokens), tuple(places))

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The tokens that are words."""
        return tuple(token for token in self.tokens if token not in (STOP, ASK))

    @cached_property
    def plain(self) -> str:
        """All tokens with one space between them."""
        return " ".join(self.tokens)

    @cached_property
    def _starts(self) -> list[int]:
        starts, at = [], 0
        for token in self.tokens:
            starts.append(at)
            at += len(token) + 1
        return starts

    def part(self, first: int, last: int | None = None) -> "Reading":
        """The tokens from `first` up to `last`, or to the end."""
        return Reading(self.text, self.tokens[first:last], self.places[first:last])

    def spoken(self, voice: str) -> "Reading":
        """The tokens that are not blanked out in a text of the same length."""
        kept = [index for index, (start, _) in enumerate(self.places) if not voice[start].isspace() or self.text[start].isspace()]
        if len(kept) == len(self.tokens):
            return self
        return Reading(self.text, tuple(self.tokens[index] for index in kept), tuple(self.places[index] for index in kept))

    def sentences(self) -> list["Reading"]:
        """The sentences, each with its end."""
        ends = [index + 1 for index, token in enumerate(self.tokens) if token in (STOP, ASK)]
        bounds = [0, *ends] if ends and ends[-1] == len(self.tokens) else [0, *ends, len(self.tokens)]
        return [self.part(first, last) for first, last in pairwise(bounds) if last > first]

    def token_at(self, offset: int) -> int:
        """The token at an offset in `plain`."""
        return bisect_right(self._starts, offset) - 1

    def quoted(self, match: re.Match[str]) -> str:
        """What a pattern found in `plain`, as it is written in the text."""
        return self.quote(self.token_at(match.start()), self.token_at(match.end() - 1))

    def whole(self) -> str:
        """The whole text, as written."""
        return self.quote(0, len(self.tokens) - 1)

    def quote(self, first: int, last: int) -> str:
        """The text from token `first` to token `last`, as written."""
        return self.text[self.places[first][0] : self.places[last][1]]


def _written_out(word: str) -> tuple[str, ...]:
    if word in _WHOLE:
        return _WHOLE[word]
    if word in _IS:
        return word[:-2], "is"
    ending = next((ending for ending in _ENDINGS if word.endswith(ending) and word != ending), None)
    return (word,) if ending is None else (word.removesuffix(ending), _ENDINGS[ending])
