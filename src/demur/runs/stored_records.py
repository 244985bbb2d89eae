"""What a run folder holds, as typed records. Facts that earlier versions did not store are filled in here.

The only module that turns the store's JSON into `Cell`, `Manifest` and `DirectionFacts` for the analysis.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import JsonValue

from demur.analysis.cell import Cell
from demur.analysis.manifest import DirectionFacts, JudgeFacts, Manifest
from demur.analysis.rates import Labels, Refusals
from demur.interventions.edit_kind import edit_kind
from demur.judges.judge import get_judge

if TYPE_CHECKING:
    from demur.runs.store import Store

EARLIER_CONTROL = "random"
"""The only kind of control that there was before cells and directions named it."""

VerdictRow = tuple[str, int, str, bool, str, str]
"""Cell, position of the instruction, judge, refusal, label, evidence."""


def cell_of(facts: Mapping[str, JsonValue]) -> Cell:
    """A stored cell as a record.

    Args:
        facts: the cell as the store has it. Cells of earlier versions do not name their action, the change that would confirm
            them, or their kind of control. The first two are those that the kind of edit says.

    Returns:
        The cell.

    Raises:
        InputError: where the action is not stored and the kind of edit is not known.
    """
    cell = Cell.model_validate(facts)
    changes: dict[str, object] = {}
    if cell.edited and "action" not in facts:
        kind = edit_kind(cell.intervention)
        action = kind.action(cell.coefficient)
        changes |= {"action": action, "expected": kind.expected(action, cell.instructions)}
    if cell.control and "control_kind" not in facts:
        changes["control_kind"] = EARLIER_CONTROL
    return cell.model_copy(update=changes)


def stored_cells(store: "Store") -> list[Cell]:
    """All cells of a run, in the order of the study."""
    return [cell_of(facts) for facts in store.cells()]


def stored_directions(store: "Store") -> list[DirectionFacts]:
    """All directions of a run without their vectors, in the order in which they were stored."""
    found = []
    for facts in store.directions():
        direction = DirectionFacts.model_validate(facts)
        unnamed = direction.control and "control_kind" not in facts
        found.append(direction.model_copy(update={"control_kind": EARLIER_CONTROL}) if unnamed else direction)
    return found


def stored_manifest(store: "Store") -> Manifest:
    """What a run wrote down of itself.

    Raises:
        InputError: where the run holds verdicts of a judge that is not installed, and says nothing of that judge.
    """
    facts = {
        "study": store.recall("study_facts"),
        "created": store.recall("created"),
        "versions": store.recall("versions"),
        "sessions": store.recall("sessions", []),
        "environment": store.recall("environment"),
        "checkpoints": store.recall("checkpoints", {}),
        "arms": store.recall("arms", []),
        "instructions": store.recall("instructions", {}),
        "edits": store.recall("edits", {}),
        "judges": _judges(store.recall("judge_versions", {}), store.recall("judge_facts", {})),
        "added_judges": store.recall("added judges", []),
        "warnings": store.recall("warnings", []),
    }
    return Manifest.model_validate(facts)


def judge_facts(name: str) -> JudgeFacts:
    """What a run writes down of an installed judge.

    Raises:
        InputError: for an unknown judge.
    """
    judge = get_judge(name)
    return JudgeFacts(name=name, version=judge.version, labels=judge.labels, refusal_labels=judge.refusal_labels)


def _judges(versions: Mapping[str, int | str], stored: Mapping[str, JsonValue]) -> list[JudgeFacts]:
    """The judges whose verdicts a run holds. Runs of earlier versions stored a judge's version and nothing else of it."""
    return [
        JudgeFacts.model_validate(stored[name]) if name in stored else judge_facts(name).model_copy(update={"version": version})
        for name, version in versions.items()
    ]


@dataclass(frozen=True)
class Verdicts:
    """All verdicts of a run, read once.

    Attributes:
        rows: one verdict each.
    """

    rows: Sequence[VerdictRow]

    def refusals(self) -> Refusals:
        """Whether each completion is called a refusal, by cell and judge."""
        found: dict[tuple[str, str], dict[int, bool]] = {}
        for cell, position, judge, refusal, _, _ in self.rows:
            found.setdefault((cell, judge), {})[position] = refusal
        return found

    def labels(self) -> Labels:
        """How many completions got each label, by cell and judge."""
        found: dict[tuple[str, str], Counter[str]] = {}
        for cell, _, judge, _, label, _ in self.rows:
            found.setdefault((cell, judge), Counter())[label] += 1
        return found
