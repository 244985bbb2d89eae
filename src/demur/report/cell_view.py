"""The cells of a summary as figures, tables and the page read them: in one order, under names that tell them apart.

An entry is one cell under one judge with its label, its change against the target's own baseline and its paired test. Labels stay
as short as they can: prompt, layer or coefficient are named only where a study has several. A summary without cells is refused.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from demur.core.errors import InputError
from demur.core.number_format import TIMES

INTERVENTIONS = {"none": "no intervention", "add": "added", "ablate": "ablated"}
"""Interventions in reading order, and the word for each."""

BASELINE = "baseline"
"""The label of a cell without intervention."""

_UNITS = {"unit": "unit vector", "raw": "raw norm", "residual": "mean residual norm"}


@dataclass(frozen=True)
class Entry:
    """One cell under one judge.

    `target` names checkpoint and, where needed, prompt. `direction` names the direction, `variant` adds the coefficient where an
    intervention has several; both are `baseline` where there is no intervention. `dose` is the coefficient in words, empty for an
    ablation. Rates, `change` and interval are fractions; `change`, `p_value` and `p_holm` are None where nothing was compared.
    `published` are the rows of the summary that set a published rate beside this cell.
    """

    cell: Mapping[str, Any]
    target: str
    direction: str
    variant: str
    dose: str
    change: float | None
    p_value: float | None
    p_holm: float | None
    published: tuple[Mapping[str, Any], ...] = ()

    @property
    def key(self) -> str:
        """The cell's key: equal under every judge."""
        return str(self.cell["key"])

    @property
    def judge(self) -> str:
        """Name of the judge."""
        return str(self.cell["judge"])

    @property
    def instructions(self) -> str:
        """Name of the instruction set."""
        return str(self.cell["instructions"])

    @property
    def intervention(self) -> str:
        """`none`, `add` or `ablate`."""
        return str(self.cell["intervention"])

    @property
    def source(self) -> str | None:
        """The checkpoint the direction came from, or the control's name; None for a baseline."""
        return None if self.cell["source"] is None else str(self.cell["source"])

    @property
    def control(self) -> bool:
        """Is the direction a null direction?"""
        return bool(self.cell.get("control"))

    @property
    def n(self) -> int:
        """Number of completions."""
        return int(self.cell["n"])

    @property
    def refusals(self) -> int:
        """How many of them the judge calls refusals."""
        return int(self.cell["refusals"])

    @property
    def rate(self) -> float:
        """Refusals as a fraction."""
        return float(self.cell["rate"])

    @property
    def labels(self) -> Mapping[str, int]:
        """How many completions got each of the judge's labels; a label that none got may be missing."""
        return dict(self.cell.get("labels") or {})

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the rate."""
        low, high = self.cell["ci95"]
        return float(low), float(high)


def judges(summary: Mapping[str, Any]) -> list[str]:
    """Judges in the study's order: figures use the first. Raises `InputError` where no cell was judged."""
    present = list(dict.fromkeys(str(cell["judge"]) for cell in summary["cells"]))
    if not present:
        raise InputError("the summary holds no judged cell, so there is nothing to report; run the study first")
    listed = [name for name in summary["study"].get("judges", []) if name in present]
    return listed + [name for name in present if name not in listed]


def entries(summary: Mapping[str, Any], judge: str | None = None) -> list[Entry]:
    """All entries, or those of one judge, in reading order: target, instruction set, baseline first, controls last."""
    cells = summary["cells"]
    targets, labels = arm_labels(summary), _labels(summary)
    beside: dict[tuple[Any, Any], tuple[Mapping[str, Any], ...]] = {}
    for row in summary.get("published", []):
        beside[row["key"], row["judge"]] = (*beside.get((row["key"], row["judge"]), ()), row)
    baselines = {_arm(cell): float(cell["rate"]) for cell in cells if cell["intervention"] == "none"}
    tests = {(test["key"], test["judge"]): test for test in summary.get("comparisons", [])}
    found = []
    for cell in cells:
        test = tests.get((cell["key"], cell["judge"]), {})
        baseline = baselines.get(_arm(cell))
        compared = cell["intervention"] != "none" and baseline is not None
        change = test.get("difference", float(cell["rate"]) - baseline) if compared and baseline is not None else None
        target = targets[cell["target"], cell["prompt"]]
        published = beside.get((cell["key"], cell["judge"]), ())
        paired = test.get("p_value"), test.get("p_holm")
        found.append(Entry(cell, target, *labels[_setting(cell)], _dose(cell), change, *paired, published))
    place = _places(summary)
    return sorted((entry for entry in found if judge in (None, entry.judge)), key=place)


def targets_of(found: Iterable[Entry]) -> list[str]:
    """Target labels in order, each once."""
    return list(dict.fromkeys(entry.target for entry in found))


def instruction_sets(found: Iterable[Entry]) -> list[str]:
    """Names of instruction sets, harmful first."""
    return sorted({entry.instructions for entry in found}, key=lambda name: (name != "harmful", name))


def direction_labels(summary: Mapping[str, Any]) -> dict[str, str]:
    """A short label for each direction's name: its source, and what else tells it from others of the same source."""
    directions = summary["directions"]
    fields = ("prompt", "layer", "site", "position")
    needed = _distinguishing([(each["source"], {field: each.get(field) for field in fields}) for each in directions])
    words = {"prompt": " / {}", "layer": ", layer {}", "site": ", {}", "position": ", position {}"}
    labels = {
        each["name"]: str(each["source"])
        + "".join(words[field].format(each[field]) for field in fields if field in needed and each.get(field) is not None)
        for each in directions
    }
    shared = {label for label in labels.values() if list(labels.values()).count(label) > 1}
    return {name: f"{label} ({name})" if label in shared else label for name, label in labels.items()}


def _arm(cell: Mapping[str, Any]) -> tuple[Any, ...]:
    return cell["target"], cell["prompt"], cell["instructions"], cell["judge"]


def arm_labels(summary: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """Label of each arm: the checkpoint, and the prompt where any checkpoint has several."""
    arms = dict.fromkeys((str(cell["target"]), str(cell["prompt"])) for cell in summary["cells"])
    several = len({checkpoint for checkpoint, _ in arms}) < len(arms)
    return {(checkpoint, prompt): f"{checkpoint} / {prompt}" if several else checkpoint for checkpoint, prompt in arms}


def _setting(cell: Mapping[str, Any]) -> tuple[Any, ...]:
    """What an intervention is, whatever it is applied to."""
    fields = ("intervention", "direction", "source", "layer", "layers", "sites", "positions", "coefficient", "unit")
    return tuple(tuple(value) if isinstance(value := cell.get(field), list) else value for field in fields)


def _dose(cell: Mapping[str, Any]) -> str:
    if cell["intervention"] != "add" or cell["coefficient"] is None:
        return ""
    return f"{cell['coefficient']:g} {TIMES} {_UNITS.get(cell['unit'], cell['unit'])}"


def _distinguishing(described: Sequence[tuple[Any, Mapping[str, Any]]]) -> set[str]:
    """Fields in which two things of the same source differ."""
    values: dict[tuple[Any, str], set[Any]] = defaultdict(set)
    for source, fields in described:
        for field, value in fields.items():
            values[source, field].add(value)
    return {field for (_, field), seen in values.items() if len(seen) > 1}


def _labels(summary: Mapping[str, Any]) -> dict[tuple[Any, ...], tuple[str, str]]:
    """(direction, variant) of each setting: unique within an intervention."""
    origins = {each["name"]: each for each in summary["directions"]}
    settings = {_setting(cell): cell for cell in summary["cells"]}
    labels: dict[tuple[Any, ...], tuple[str, str]] = {}
    for intervention in {cell["intervention"] for cell in settings.values()}:
        chosen = {setting: cell for setting, cell in settings.items() if cell["intervention"] == intervention}
        if intervention == "none":
            labels |= dict.fromkeys(chosen, (BASELINE, BASELINE))
            continue
        parts = {setting: _parts(cell, origins.get(cell["direction"], {})) for setting, cell in chosen.items()}
        needed = _distinguishing([(chosen[setting]["source"], fields) for setting, fields in parts.items()])
        # Where it acts is part of the dose: rows of two sources that differ in it are not to be read as if they did not.
        needed |= {field for field in ("layers", "sites", "positions") if len({fields[field] for fields in parts.values()}) > 1}
        made = {
            setting: (
                str(chosen[setting]["source"]) + "".join(text for field, text in fields.items() if field in needed - {"dose"}),
                "".join(text for field, text in fields.items() if field in needed & {"dose"}),
            )
            for setting, fields in parts.items()
        }
        counts: dict[str, int] = defaultdict(int)
        for direction, dose in made.values():
            counts[direction + dose] += 1
        for setting, (direction, dose) in made.items():
            name = f"{direction} ({chosen[setting]['direction']})" if counts[direction + dose] > 1 else direction
            labels[setting] = name, name + dose
    return labels


def _parts(cell: Mapping[str, Any], origin: Mapping[str, Any]) -> dict[str, str]:
    """The words that could tell a setting from another one of the same source, in the order in which a label holds them."""
    layer = cell["layer"] if cell["layer"] is not None else origin.get("layer")
    coefficient = "" if cell["coefficient"] is None else f", {TIMES} {cell['coefficient']:g} {cell['unit'] or ''}".rstrip()
    return {
        "prompt": f" / {origin['prompt']}" if origin.get("prompt") is not None else "",
        "layer": "" if layer is None else f", layer {layer}",
        "layers": f", {INTERVENTIONS[cell['intervention']]} at {_layers(cell)}",
        "sites": f", {'+'.join(cell['sites'])}" if cell.get("sites") else "",
        "positions": f", {cell['positions']} positions" if cell.get("positions") else "",
        "dose": coefficient,
    }


def _layers(cell: Mapping[str, Any]) -> str:
    if cell.get("layers"):
        return "+".join(map(str, cell["layers"]))
    return "all layers" if cell["intervention"] == "ablate" else "its own layer"


def _places(summary: Mapping[str, Any]) -> Any:
    """A sort key over entries."""
    checkpoints, judged = list(summary["checkpoints"]), judges(summary)
    arms = list(dict.fromkeys((arm["checkpoint"], arm["prompt"]) for arm in summary.get("arms", [])))
    prompts = list(dict.fromkeys(prompt for _, prompt in arms))
    origins = {each["name"]: each.get("prompt") for each in summary["directions"]}
    order = list(INTERVENTIONS)

    def index(known: Sequence[Any], value: Any) -> int:
        return known.index(value) if value in known else len(known)

    def place(entry: Entry) -> tuple[Any, ...]:
        cell = entry.cell
        return (
            index(checkpoints, cell["target"]),
            index(arms, (cell["target"], cell["prompt"])),
            index(order, entry.intervention) > 0,
            index(order, entry.intervention),
            entry.instructions != "harmful",
            entry.control,
            index(checkpoints, entry.source),
            entry.source or "",
            index(prompts, origins.get(cell["direction"])),
            -1 if cell["layer"] is None else cell["layer"],
            0.0 if cell["coefficient"] is None else cell["coefficient"],
            entry.variant,
            index(judged, entry.judge),
        )

    return place
