"""How much of stored text is broken: text that only repeats itself or means nothing."""

from collections.abc import Hashable, Sequence
from typing import TypeVar

from demur.judges.judge import Judged, Verdict, answers, get_judge
from demur.measurements.text_coherence import SHAPES

Key = TypeVar("Key", bound=Hashable)


def broken_shares(keys: Sequence[Key], texts: Sequence[str]) -> dict[Key, float]:
    """The share of broken text by key.

    Args:
        keys: the key of each text.
        texts: the texts.
    """
    given = answers(get_judge(SHAPES), [Judged(text, "") for text in texts])
    broken: dict[Key, list[bool]] = {}
    for key, verdict in zip(keys, given, strict=True):
        broken.setdefault(key, []).append(isinstance(verdict, Verdict) and verdict.label == "degenerate")
    return {key: sum(each) / len(each) for key, each in broken.items()}
