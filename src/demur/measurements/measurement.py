"""The protocol of a measurement: anything that is measured of an arm, a pair of arms or a cell, other than completions.

The module of a measurement is imported as soon as a study names it, before torch is. So it must import torch inside `measure`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, get_args, runtime_checkable

from pydantic import BaseModel, JsonValue

from demur.core.progress import Progress, silent
from demur.core.registry import registry
from demur.judges.judge import Judged

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    from demur.directions.direction import Direction
    from demur.engine.capture import Means
    from demur.engine.checkpoints import Checkpoint
    from demur.inputs.prompts import Prompt
    from demur.interventions.intervention import Intervention


@dataclass(frozen=True, eq=False)
class MeasurementRecord:
    """The stored result of one measurement of one subject.

    Attributes:
        facts: plain values.
        arrays: numpy arrays by name.
    """

    facts: Mapping[str, JsonValue] = field(default_factory=dict)
    arrays: "Mapping[str, NDArray[numpy.floating[Any]]]" = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ArmSubject:
    """One arm, loaded.

    Attributes:
        name: the arm's name, `checkpoint/prompt`.
        checkpoint: the loaded checkpoint.
        prompt: the prompt format with its tokenizer.
        train: training instructions by label, `harmful` and `harmless`.
        held_out: instructions of the study's split, by label; no direction was made from them.
        site: the site at which the study reads directions.
        position: the prompt position at which it reads them.
        layers: the layers of the study's directions.
        directions: the arm's own directions, one for each layer of the study.
        batch_tokens: the most tokens in a batch; None to find the number from the free memory.
        means: training means by label, at every layer; None if they were not computed yet. A measurement that needs them then
            computes them itself.
        progress: called with the number of instructions that the model has just processed.
    """

    name: str
    checkpoint: "Checkpoint"
    prompt: "Prompt"
    train: Mapping[str, tuple[str, ...]]
    held_out: Mapping[str, tuple[str, ...]]
    site: str
    position: int
    layers: tuple[int, ...]
    directions: "tuple[Direction, ...]" = ()
    batch_tokens: int | None = None
    means: "Mapping[str, Means] | None" = None
    progress: Progress = silent


@dataclass(frozen=True)
class CellCompletion:
    """One stored completion of a cell.

    Attributes:
        said: its text with its instruction, as judges get it.
        token_ids: its tokens.
    """

    said: Judged
    token_ids: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class CellSubject:
    """One cell: the target arm with its unedited completions, and the edit.

    Attributes:
        name: the cell's key.
        arm: the target arm.
        edit: the edit; None for a cell without an edit.
        instructions: the cell's instructions.
        completions: the target's completions without an edit: one token sequence for each instruction.
        max_new_tokens: the most tokens in the study's completions.
        stop_at_eos: whether they end at a stop token.
        written: the cell's own completions, for a measurement with `reads_completions`.
        reference: the arm of the checkpoint that `reference_of` names, else the target's own.
    """

    name: str
    arm: ArmSubject
    edit: "Intervention | None"
    instructions: tuple[str, ...]
    completions: tuple[tuple[int, ...], ...] = ()
    max_new_tokens: int = 16
    stop_at_eos: bool = True
    written: tuple[CellCompletion, ...] = ()
    reference: ArmSubject | None = None


@dataclass(frozen=True, eq=False)
class PairSubject:
    """Two arms, both loaded. They are arms of different checkpoints, unless the measurement has `same_checkpoint`.

    Attributes:
        name: the names of both arms, `first with second`.
        first: the arm of the earlier checkpoint of the study.
        second: the arm of the later one.
    """

    name: str
    first: ArmSubject
    second: ArmSubject


@dataclass(frozen=True)
class PlannedSubject:
    """The sizes of a subject, as a plan knows them before anything is loaded.

    Attributes:
        test: the number of test instructions of each instruction set; for a cell, of its own set only.
        training: the number of training instructions, harmful and harmless ones together.
        layers: the number of layers of the checkpoint; None if not known.
        edited: whether it is a cell with an edit.
    """

    test: Mapping[str, int]
    training: int
    layers: int | None = None
    edited: bool = False


Subject = ArmSubject | CellSubject | PairSubject

SubjectKind = Literal["arm", "pair", "cell"]
SUBJECTS: tuple[SubjectKind, ...] = get_args(SubjectKind)
"""The kinds of subject that a measurement may have."""


@runtime_checkable
class Measurement(Protocol):
    """A measurement.

    Attributes:
        name: its name in studies and `summary.json`.
        version: the version of its method; a stored record of another version is measured again.
        subjects: what it measures: each `arm`, each `pair` of arms of different checkpoints, or each `cell`.
        settings: a frozen pydantic model of its settings in a study, each with a default; None if it has no settings.

    A measurement of cells may also have an attribute `of_nulls`. If it is true, null directions without completions are measured.
    If it has an attribute `unedited_only` that is true, only cells without an edit are measured.
    If it has an attribute `reads_completions` that is true, it gets the cell's own completions and is made after them.
    If it has a method `reference` (`HasReference`), another checkpoint is loaded with the cell's target.
    If a measurement of arms has a method `checkpoints` (`OfCheckpoints`), only arms of those checkpoints are measured.
    A measurement of any kind may have a method `prompts` (`CountsPrompts`), so that a plan can count its work.
    A measurement of pairs may also have an attribute `same_checkpoint`. If it is true, arms of one checkpoint are compared, too.
    If it has an attribute `one_format` that is true, both checkpoints are asked with the same prompt tokens: there is one subject
    for each two checkpoints and each format that both have, or each format of the later one if they have none in common. The
    format is that of the second arm.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    subjects: ClassVar[SubjectKind]
    settings: ClassVar[type[BaseModel] | None]

    def measure(self, subject: Any, settings: Any) -> MeasurementRecord:
        """Measure one subject.

        Args:
            subject: an `ArmSubject`, `PairSubject` or `CellSubject`, as `subjects` says.
            settings: an instance of `self.settings`, or None if the measurement has no settings.

        Returns:
            What was found. The same subject and settings give the same record.

        Raises:
            InputError: if this subject cannot be measured. The run stores the reason and goes on. It tries again when it is
                resumed, because what fails on one device may work on another.
            WorkError: if the work failed. The run does the same.
        """
        ...

    def summary(self, record: MeasurementRecord) -> dict[str, JsonValue]:
        """The numbers of one record for `summary.json`. This method must not import torch."""
        ...


@runtime_checkable
class MeasuresTogether(Protocol):
    """A measurement of cells that measures many cells of one arm at once, so that they can be rows of the same batches."""

    def measure_together(self, subjects: Sequence[CellSubject], settings: Any) -> Iterator[MeasurementRecord]:
        """Measure cells of one arm.

        Args:
            subjects: the cells.
            settings: as for `measure`.

        Yields:
            One record for each cell, in order. Each is stored at once.

        Raises:
            InputError: as `measure`. It is the reason for every cell whose record was not given yet.
            WorkError: if the work failed. The cells whose records were not given yet are then measured one by one.
        """
        ...


@runtime_checkable
class HasReference(Protocol):
    """A measurement of cells that needs a further checkpoint, without an edit."""

    def reference(self, settings: Any, checkpoints: Sequence[str]) -> str:
        """The name of this checkpoint.

        Args:
            settings: as for `measure`.
            checkpoints: the checkpoints of the study, in order.

        Raises:
            InputError: if the study has no such checkpoint.
        """
        ...


@runtime_checkable
class CountsPrompts(Protocol):
    """A measurement that says how much work it is, so that `demur plan` can tell how long it takes."""

    def prompts(self, settings: Any, planned: PlannedSubject) -> float | int:
        """About how many prompts are run for one subject; for a pair, by each of its checkpoints.

        Args:
            settings: as for `measure`.
            planned: the sizes of the subject.

        Returns:
            The number of forward passes over one prompt. What a prompt's continuations take counts as a share of a prompt.
        """
        ...


def measurement(name: str) -> Measurement:
    """Find a measurement by its name, or by `module:Class`.

    Raises:
        InputError: if the name is unknown, with the nearest known name; or if the class lacks an attribute of the protocol.
    """
    found: Measurement = registry("measurement").get(name)
    return found


def measures_pair(found: Measurement, first: str, second: str, *, one_format: bool | None = None) -> bool:
    """Whether a measurement is made of pairs of arms of these checkpoints.

    Args:
        found: the measurement.
        first: the checkpoint of one arm.
        second: the checkpoint of the other arm.
        one_format: whether both checkpoints are asked in the format of the second arm; None if this does not matter.
    """
    fits = one_format is None or one_format == bool(getattr(found, "one_format", False))
    return found.subjects == "pair" and fits and (first != second or bool(getattr(found, "same_checkpoint", False)))


def measures_nulls(name: str) -> bool:
    """Whether a measurement of cells is also made of null directions without completions: those that have `of_nulls` are."""
    return bool(getattr(measurement(name), "of_nulls", False))


def measures_cell(name: str, edited: bool, answered: bool) -> bool:
    """Whether a measurement of cells is made of a cell.

    Args:
        name: the measurement.
        edited: whether the cell has an edit.
        answered: whether it has completions; if not, it is one of a null direction.
    """
    if edited and getattr(measurement(name), "unedited_only", False):
        return False
    return answered or measures_nulls(name)


def reads_completions(name: str) -> bool:
    """Whether a measurement of cells reads the cells' own completions."""
    return bool(getattr(measurement(name), "reads_completions", False))


def reference_of(found: Measurement, settings: BaseModel | None, checkpoints: Sequence[str]) -> str | None:
    """The further checkpoint that a measurement of cells needs; None for most.

    Args:
        found: the measurement.
        settings: its settings.
        checkpoints: the checkpoints of the study, in order.

    Raises:
        InputError: if the study has no such checkpoint.
    """
    return found.reference(settings, checkpoints) if isinstance(found, HasReference) else None


def without_pairs(found: Measurement, checkpoints: Sequence[str]) -> list[str]:
    """A warning if a measurement of pairs has nothing to measure, because the study has one checkpoint.

    Args:
        found: the measurement.
        checkpoints: the checkpoint of each arm of the study.
    """
    if found.subjects != "pair" or any(measures_pair(found, *pair) for pair in combinations(checkpoints, 2)):
        return []
    if getattr(found, "same_checkpoint", False):
        return [f"The measurement {found.name} compares two arms, and this study has one, so it is not made."]
    return [f"The measurement {found.name} compares two checkpoints, and this study has one, so it is not made."]
