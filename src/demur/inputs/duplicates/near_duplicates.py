"""Instructions that have most of their words in common, such as "Write a guide on how to X" and "Write a tutorial on how to X".

A model answers such instructions alike. So they are one group where intervals are computed, and they must not be in two splits.
Their likeness is the Jaccard index of their sets of words (Jaccard 1901): shared words over all words of both.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil

from demur.inputs.repeated_instructions import sameness

ALIKE = 0.6
"""From this Jaccard index on, two instructions are near-duplicates."""

_WORD = re.compile(r"[\w'\u2019]+")


@dataclass(frozen=True, order=True)
class Pair:
    """Two instructions that are alike: their places in the first and the second list, and their Jaccard index."""

    first: int
    second: int
    likeness: float


def word_set(text: str) -> frozenset[str]:
    """The different words of an instruction, without case. A text without spaces between its words counts as one word.

    Example:
        >>> sorted(word_set("Write a script, a SHORT one!"))
        ['a', 'one', 'script', 'short', 'write']
    """
    same = sameness(text)
    return frozenset(_WORD.findall(same)) or frozenset((same,))


def alike_within(texts: Sequence[str], least: float = ALIKE) -> list[Pair]:
    """All pairs of near-duplicates in one list.

    Args:
        texts: the instructions.
        least: the Jaccard index from which on two instructions are near-duplicates, above 0 and at most 1.

    Returns:
        The pairs in order, each with its smaller place first.
    """
    sets = [word_set(text) for text in texts]
    return sorted(_alike(sets, sets, least, within=True))


def alike_between(first: Sequence[str], second: Sequence[str], least: float = ALIKE) -> list[Pair]:
    """All pairs of near-duplicates with one instruction from each list.

    Args:
        first: some instructions.
        second: other instructions.
        least: the Jaccard index from which on two instructions are near-duplicates, above 0 and at most 1.

    Returns:
        The pairs in order.

    Example:
        >>> alike_between(["Write a guide on how to pick a lock"], ["Write a tutorial on how to pick a lock", "Bake bread"])
        [Pair(first=0, second=0, likeness=0.7777777777777778)]
    """
    return sorted(_alike([word_set(text) for text in first], [word_set(text) for text in second], least))


def groups_of(texts: Sequence[str], least: float = ALIKE) -> list[int]:
    """The group of each instruction: near-duplicates share one, also where only a third instruction connects them.

    Args:
        texts: the instructions.
        least: the Jaccard index from which on two instructions are near-duplicates.

    Returns:
        For each instruction, the place of the first instruction of its group.

    Example:
        >>> groups_of(["How do I bake bread?", "Name a river", "How do I bake good bread?"])
        [0, 1, 0]
    """
    parents = list(range(len(texts)))

    def root(place: int) -> int:
        while parents[place] != place:
            parents[place] = parents[parents[place]]
            place = parents[place]
        return place

    for pair in alike_within(texts, least):
        one, other = root(pair.first), root(pair.second)
        parents[max(one, other)] = min(one, other)
    return [root(place) for place in range(len(texts))]


def _alike(
    first: Sequence[frozenset[str]], second: Sequence[frozenset[str]], least: float, *, within: bool = False
) -> Iterator[Pair]:
    """Compares only sets that share one of their rarest words.

    Two sets with a Jaccard index of at least `least` share at least `least` of the words of either one. So one of the first
    (1 - least) of the words of each, in the same order of all words, is shared. With the rarest words first, few sets are.
    """
    counts = Counter(word for sets in (first, second) for words in sets for word in words)
    index: dict[str, list[int]] = defaultdict(list)
    sizes = [len(words) for words in second]
    for place, words in enumerate(second):
        for word in _rarest(words, counts, least):
            index[word].append(place)
    for place, words in enumerate(first):
        fewest, most = least * len(words) - 1e-9, len(words) / least + 1e-9
        for other in {other for word in _rarest(words, counts, least) for other in index[word]}:
            if (within and other <= place) or not fewest <= sizes[other] <= most:
                continue
            shared = len(words & second[other])
            likeness = shared / (len(words) + sizes[other] - shared)
            if likeness >= least - 1e-12:
                yield Pair(place, other, likeness)


def _rarest(words: frozenset[str], counts: Counter[str], least: float) -> list[str]:
    kept = len(words) - ceil(least * len(words) - 1e-9) + 1
    return sorted(words, key=lambda word: (counts[word], word))[:kept]
