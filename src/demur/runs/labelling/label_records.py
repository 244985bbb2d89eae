"""The rows and the design of a labelled sample, as the store gives and takes them."""

from dataclasses import dataclass
from typing import NamedTuple

from pydantic import Field

from demur.analysis.cell import Record


class LabelDesign(Record):
    """What all labellers of a run share.

    Attributes:
        judge: the judge whose labels people give.
        labels: these labels, in the order of tables.
        refusal_labels: those that count as refusals.
        definitions: the definition of each label; empty where there is none.
        seed: the seed of the sample and of the labellers' orders.
    """

    judge: str
    labels: tuple[str, ...]
    refusal_labels: tuple[str, ...]
    definitions: dict[str, str] = Field(default_factory=dict)
    seed: int = 0


class Stratum(NamedTuple):
    """Completions that are sampled together.

    Attributes:
        name: what they share.
        size: how many there are.
        taken: how many of them are in the sample: those with the lowest places.
    """

    name: str
    size: int
    taken: int


class FrameRow(NamedTuple):
    """A completion that can be drawn: its stratum, and its random place in the stratum, from 0."""

    cell: str
    position: int
    stratum: str
    place: int


class StoredLabel(NamedTuple):
    """What one labeller said of one completion; a label that is None says that the labeller skipped it."""

    labeller: str
    cell: str
    position: int
    label: str | None


@dataclass(frozen=True)
class LabelledSample:
    """Everything about people's labels that a run stores.

    Attributes:
        design: what the labellers share; None if nobody has labelled.
        strata: the strata of the sample.
        frame: every completion that could be drawn.
        labels: all labels, in the order in which they were given.
    """

    design: LabelDesign | None
    strata: tuple[Stratum, ...] = ()
    frame: tuple[FrameRow, ...] = ()
    labels: tuple[StoredLabel, ...] = ()

    def probabilities(self) -> dict[tuple[str, int], float]:
        """The chance with which each completion of the sample was drawn, by cell and position."""
        strata = {one.name: one for one in self.strata}
        return {
            (row.cell, row.position): strata[row.stratum].taken / strata[row.stratum].size
            for row in self.frame
            if row.place < strata[row.stratum].taken
        }
