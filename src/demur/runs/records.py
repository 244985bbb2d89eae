"""The records that jobs give and the driver stores. The same job gives equal records every time."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from demur.analysis.manifest import ArmFacts, CheckpointFacts, DirectionFacts
from demur.runs.rows import StoredCompletion, StoredMeans, StoredMeasurement, UnmeasuredSubject

if TYPE_CHECKING:
    from demur.directions.direction import Direction


@dataclass(frozen=True)
class CheckpointLoaded:
    """A checkpoint was loaded for some job. The driver refuses it if it is not the checkpoint that the run began with.

    Attributes:
        name: the checkpoint's name in the study.
        facts: weights, shape, end tokens and settings.
        arms: its arms, with the text of their prompt formats.
        warnings: warnings for readers of the numbers.
        arms_when_begun: the arms as they are with only the instructions that the run had when it stored them; empty if these are
            the same.
    """

    name: str
    facts: CheckpointFacts
    arms: tuple[ArmFacts, ...]
    warnings: tuple[str, ...] = ()
    arms_when_begun: tuple[ArmFacts, ...] = ()


@dataclass(frozen=True, eq=False)
class DirectionMade:
    """A direction or a null direction."""

    direction: "Direction"
    facts: DirectionFacts


@dataclass(frozen=True)
class CompletionsMade:
    """One finished batch of completions, of any cells of one checkpoint."""

    rows: tuple[StoredCompletion, ...]


JobRecord = CheckpointLoaded | DirectionMade | StoredMeans | StoredMeasurement | UnmeasuredSubject | CompletionsMade
