"""What the edit of a cell has to know of its target, and the means and the gate that it reads. Only names; nothing is loaded."""

from collections.abc import Sequence

from demur.interventions.edit_kind import Fact, edit_kind, needed_facts, typed_settings
from demur.study.plan import Plan, PlannedCell
from demur.study.spec import LABELS

MeansName = tuple[str, str]
"""The arm, and what was read of its training activations: the label of means, or `spread` and a layer."""

_SPREAD = "spread "

GateName = tuple[str, str]
"""The target arm and the settings of a gate, as `PlannedGate.settings` has them."""


def cell_key(key: str) -> str:
    """The key of a complete cell, with all its completions stored."""
    return f"cell:{key}"


def means_key(name: tuple[str, str]) -> str:
    """The key of stored means at every layer and site, or of a stored spread."""
    return f"means:{name[0]} {name[1]}"


def gate_key(name: GateName) -> str:
    """The key of a stored gate."""
    return f"gate:{name[0]} {name[1]}"


def gates_of(cell: PlannedCell) -> tuple[GateName, ...]:
    """The gate of a cell's edit; empty if it has none."""
    return () if cell.gate is None else ((cell.target.name, cell.gate.settings),)


def facts_of(cell: PlannedCell) -> tuple[Fact, ...]:
    """What a cell's edit has to know of its target."""
    spec = cell.intervention
    if spec is None:
        return ()
    kind = edit_kind(spec.kind)
    return needed_facts(kind, spec.unit, typed_settings(kind, spec.settings))


def spread_label(layer: int) -> str:
    """Names, among the means of an arm, how its training activations vary at one layer."""
    return f"{_SPREAD}{layer}"


def spread_layers(labels: Sequence[str]) -> list[int]:
    """The layers of which these labels name the spread."""
    return [int(label.removeprefix(_SPREAD)) for label in labels if label.startswith(_SPREAD)]


def means_of(cell: PlannedCell) -> tuple[MeansName, ...]:
    """The means of its target that a cell's edit needs, and the spread at the layer of its direction if it needs that."""
    facts = facts_of(cell)
    labels: list[str] = [label for label in LABELS if f"{label} means" in facts]
    if "spread" in facts and cell.direction is not None:
        labels += [spread_label(layer) for layer in dict.fromkeys(one.layer for one in cell.direction.members)]
    return tuple((cell.target.name, label) for label in labels)


def means_of_plan(plan: Plan) -> tuple[MeansName, ...]:
    """All means that the cells of a plan need, each once, in the order of the cells."""
    return tuple(dict.fromkeys(name for cell in plan.cells for name in means_of(cell)))
