"""The training instructions of one label as texts, with their topics if their set has any."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingTexts:
    """Training instructions of one label.

    Attributes:
        instructions: the texts, in the order in which they are used.
        topics: the topic of each instruction, as its set states it; empty if the set does not state the topic of each of them.
    """

    instructions: tuple[str, ...]
    topics: tuple[str, ...] = ()
