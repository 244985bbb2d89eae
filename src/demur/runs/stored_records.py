"""Stored JSON as typed records. Facts that earlier versions did not store are filled in here."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import JsonValue

from demur.analysis.cell import Cell
from demur.analysis.manifest import DirectionFacts
from demur.analysis.rates import Failures, Labels, Refusals
from demur.interventions.edit_kind import action_of, edit_kind
from demur.judges.judge import UNPARSED
from demur.runs.labelling.label_records import LabelledSample
from demur.runs.rows import StoredFailure, StoredVerdict

EARLIER_CONTROL = "random"
"""The kind of all controls in runs that did not store it yet."""


def cell_of(facts: Mapping[str, JsonValue]) -> Cell:
    """A stored cell as a record.

    Args:
        facts: the cell as the store has it. Cells of earlier versions do not name their action, the change that would confirm
            them, or their kind of control. The first two are then taken from the kind of edit.

    Returns:
        The cell.

    Raises:
        InputError: if the action is not stored and the kind of edit is not known.
    """
    cell = Cell.model_validate(facts)
    changes: dict[str, object] = {}
    if cell.edited and "action" not in facts:
        kind = edit_kind(cell.intervention)
        action = action_of(kind, cell.coefficient, cell.settings)
        changes |= {"action": action, "expected": kind.expected(action, cell.instructions)}
    if cell.control and "control_kind" not in facts:
        changes["control_kind"] = EARLIER_CONTROL
    return cell.model_copy(update=changes)


def with_source_prompts(cells: Sequence[Cell], directions: Sequence[DirectionFacts]) -> list[Cell]:
    """Cells that say under which prompt format their directions were read, also those that earlier versions stored.

    Args:
        cells: the stored cells.
        directions: the stored directions.
    """
    prompts = {one.name: one.prompt for one in directions if not one.control}
    return [
        cell.model_copy(update={"source_prompt": prompts[cell.direction]})
        if cell.source_prompt is None and cell.direction is not None and prompts.get(cell.direction) is not None
        else cell
        for cell in cells
    ]


def direction_of(facts: Mapping[str, JsonValue]) -> DirectionFacts:
    """A stored direction without its vector.

    Args:
        facts: the direction as the store has it. Directions of earlier versions do not name their kind of control.

    Returns:
        The direction's facts.
    """
    direction = DirectionFacts.model_validate(facts)
    unnamed = direction.control and "control_kind" not in facts
    return direction.model_copy(update={"control_kind": EARLIER_CONTROL}) if unnamed else direction


@dataclass(frozen=True)
class Results:
    """The results of a run, read once.

    Attributes:
        cells: all cells, in order of entry.
        verdicts: all verdicts.
        failures: all completions on which a judge failed.
        people: the labels that people gave.
    """

    cells: Sequence[Cell]
    verdicts: Sequence[StoredVerdict]
    failures: Sequence[StoredFailure]
    people: LabelledSample = field(default_factory=lambda: LabelledSample(None))

    @property
    def rows(self) -> list[Cell]:
        """The cells that have a row of their own in reports."""
        return [cell for cell in self.cells if not cell.folded]

    @property
    def resampled(self) -> list[Cell]:
        """The cells whose directions are from resamples of the training pairs."""
        return [cell for cell in self.cells if cell.resample_of is not None]

    def refusals(self) -> Refusals:
        """Whether each completion is called a refusal, by cell and judge. Outputs without a label are left out."""
        found: dict[tuple[str, str], dict[int, bool]] = {}
        for row in self.verdicts:
            if row.label != UNPARSED:
                found.setdefault((row.cell, row.judge), {})[row.position] = row.refusal
        return found

    def labels(self) -> Labels:
        """How many completions got each label, by cell and judge. Outputs without a label are left out."""
        found: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        for row in self.verdicts:
            if row.label != UNPARSED:
                found[row.cell, row.judge][row.label] += 1
        return dict(found)

    def failed(self) -> Failures:
        """On how many completions each judge failed or gave an output without a label, by cell and judge."""
        unparsed = [(row.cell, row.judge) for row in self.verdicts if row.label == UNPARSED]
        return Counter([*((row.cell, row.judge) for row in self.failures), *unparsed])
