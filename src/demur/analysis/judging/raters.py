"""Judges and people as raters of completions, and the weights that make a labelled sample stand for all completions."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

Place = tuple[str, int]
"""A completion: the key of its cell, and the position of its instruction."""


@dataclass(frozen=True)
class Rater:
    """A judge or a labeller.

    Attributes:
        name: its name.
        person: whether it is a labeller.
        labels: the labels that it can give.
        refusal_labels: those that count as refusals.
        given: the label of each completion that it judged.
    """

    name: str
    person: bool
    labels: tuple[str, ...]
    refusal_labels: tuple[str, ...]
    given: Mapping[Place, str]

    def refuses(self, place: Place) -> bool:
        """Whether it calls a completion a refusal."""
        return self.given[place] in self.refusal_labels


@dataclass(frozen=True)
class Sampled:
    """The strata from which people's completions were drawn.

    Attributes:
        stratum: the stratum of each completion that could be drawn.
        sizes: how many completions each stratum has.
    """

    stratum: Mapping[Place, str] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)

    def weights(self, labelled: Iterable[Place]) -> dict[Place, float]:
        """How many completions each labelled one stands for: the size of its stratum by the number of labels in it.

        Labels are a random part of their stratum, also where a labeller stopped early, because the order is random.

        Args:
            labelled: the labelled completions. Those that are in no stratum are left out.
        """
        known = [place for place in labelled if place in self.stratum]
        counts = Counter(self.stratum[place] for place in known)
        return {place: self.sizes[name] / counts[name] for place in known for name in (self.stratum[place],)}
