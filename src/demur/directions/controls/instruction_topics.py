"""Groups of instructions about the same topic: as their set states them, or else by the words that they share.

A topic is a property of the text, so activations play no part. A group that was found in the activations would follow the model's
own largest differences, and would make a null that is larger by construction.
"""

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from demur.inputs.training_texts import TrainingTexts

if TYPE_CHECKING:
    from numpy import float64
    from numpy.typing import NDArray

LEAST = 4
"""The smallest number of instructions of a topic, and of the others, so that no single instruction decides."""

_USUAL = 8
"""Where the set states no topics, instructions are divided into groups of this size on average."""


@dataclass(frozen=True)
class Topic:
    """Instructions about one topic.

    Attributes:
        name: the topic as the set states it, or the two words that tell most of it.
        places: the places of its instructions among all, in order.
        stated: whether the set states it; else it was found by words.
    """

    name: str
    places: tuple[int, ...]
    stated: bool


def topics_of(texts: TrainingTexts) -> list[Topic]:
    """The topics of some instructions that can be compared with the others.

    Args:
        texts: the instructions, with their topics if known.

    Returns:
        The topics with at least four instructions of their own and four others, in the order of their first instruction. Of two
        topics that hold all instructions, only the first, because both give the same contrast.
    """
    labels = list(texts.topics) or _word_groups(texts.instructions)
    found = []
    for label in dict.fromkeys(label for label in labels if label):
        places = tuple(place for place, other in enumerate(labels) if other == label)
        if min(len(places), len(labels) - len(places)) >= LEAST:
            found.append(Topic(label, places, bool(texts.topics)))
    if len(found) == 2 and len(found[0].places) + len(found[1].places) == len(labels):
        return found[:1]
    return found


def _word_groups(instructions: tuple[str, ...]) -> list[str]:
    """The name of each instruction's group; empty for an instruction that shares no word.

    Instructions are alike as far as they share words, of which rare ones count more (tf-idf, Sparck Jones 1972). Ward's method
    (Ward 1963) joins the most similar ones step by step. Both draw nothing at random.
    """
    from scipy.cluster.hierarchy import fcluster, linkage

    words, weights = _weights(instructions)
    named = [""] * len(instructions)
    sharing = [place for place, row in enumerate(weights) if row.any()]
    count = max(2, len(instructions) // _USUAL)
    if len(sharing) < max(count, 2 * LEAST):
        return named
    # Rounded, so that the last digits, which depend on the machine, decide no tie.
    groups = fcluster(linkage(weights[sharing].round(9), method="ward"), count, criterion="maxclust")
    for group in dict.fromkeys(groups):
        members = [place for place, one in zip(sharing, groups, strict=True) if one == group]
        total = weights[members].sum(axis=0).round(9)
        best = sorted(range(len(words)), key=lambda column: (-total[column], words[column]))[:2]
        name = " and ".join(words[column] for column in best if total[column] > 0)
        for place in members:
            named[place] = f"{name} ({group})"
    return named


def _weights(instructions: tuple[str, ...]) -> "tuple[list[str], NDArray[float64]]":
    """The words that some but few instructions share, and the tf-idf weights of each instruction, as vectors of length 1 or 0."""
    import numpy

    counts = [Counter(re.findall(r"[^\W\d_]+", text.casefold())) for text in instructions]
    found_in = Counter(word for count in counts for word in count)
    # A word that is in more than a quarter of the instructions, such as "the", says nothing of their topics.
    words = sorted(word for word, number in found_in.items() if 2 <= number <= max(2, len(instructions) // 4))
    rarity = numpy.log([len(instructions) / found_in[word] for word in words])
    weights = numpy.array([[count[word] for word in words] for count in counts], dtype=numpy.float64) * rarity
    lengths = numpy.linalg.norm(weights, axis=1, keepdims=True)
    return words, numpy.divide(weights, lengths, out=numpy.zeros_like(weights), where=lengths > 0)
