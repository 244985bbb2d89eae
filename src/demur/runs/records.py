"""The records that jobs give and the driver stores. Each has a key; the same job gives the same keys every time."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from demur.analysis.manifest import ArmFacts, CheckpointFacts, DirectionFacts
from demur.runs.rows import StoredCompletion, StoredMeasurement, UnmeasuredSubject

if TYPE_CHECKING:
    from demur.directions.direction import Direction


@dataclass(frozen=True)
class CheckpointLoaded:
    """A checkpoint was loaded for some job. The driver refuses it if it is not the checkpoint that the run began with.

    Attributes:
        name: the checkpoint's name in the study.
        facts: weights, shape, end tokens and settings.
        arms: its prompt formats as they were rendered.
        warnings: warnings for readers of the numbers.
    """

    name: str
    facts: CheckpointFacts
    arms: tuple[ArmFacts, ...]
    warnings: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Names the record."""
        return f"checkpoint:{self.name}"


@dataclass(frozen=True, eq=False)
class DirectionMade:
    """A direction or a null direction."""

    direction: "Direction"
    facts: DirectionFacts

    @property
    def key(self) -> str:
        """Names the record."""
        return f"direction:{self.direction.name}"


@dataclass(frozen=True)
class CompletionsMade:
    """One finished batch of completions, of any cells of one checkpoint."""

    rows: tuple[StoredCompletion, ...]

    @property
    def key(self) -> str:
        """Names the record: the cells in it."""
        return f"completions:{'; '.join(dict.fromkeys(row.cell for row in self.rows))}"


JobRecord = CheckpointLoaded | DirectionMade | StoredMeasurement | UnmeasuredSubject | CompletionsMade
