"""Labels for checkpoints, directions and edits, as short as possible.

Prompt format, layer, coefficient and other settings are named only where a study has several of them.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from demur.analysis.cell import Cell
from demur.analysis.manifest import DirectionFacts
from demur.analysis.summary import Summary
from demur.core.edit_words import EditWords, setting_text
from demur.core.number_format import TIMES

BASELINE = "baseline"
"""The label of a cell without an edit."""

Setting = tuple[object, ...]
"""An edit, independent of its checkpoint and instructions."""

_UNITS = {"unit": "unit vector", "raw": "raw norm", "residual": "mean residual norm"}


def setting_of(cell: Cell) -> Setting:
    """The edit of a cell, independent of its checkpoint and instructions."""
    return (
        *(cell.intervention, cell.direction, cell.source, cell.layer, cell.layers, cell.sites, cell.positions),
        *(cell.coefficient, cell.unit, json.dumps(cell.settings, sort_keys=True)),
    )


def arm_labels(summary: Summary) -> dict[tuple[str, str], str]:
    """The label of each arm: the checkpoint, and the prompt format where any checkpoint has several."""
    arms = dict.fromkeys(cell.arm for cell in summary.cells)
    several = len({checkpoint for checkpoint, _ in arms}) < len(arms)
    return {(checkpoint, prompt): f"{checkpoint} / {prompt}" if several else checkpoint for checkpoint, prompt in arms}


def dose_label(cell: Cell) -> str:
    """The coefficient in words, empty if there is none."""
    if cell.coefficient is None:
        return ""
    return f"{cell.coefficient:g}" + (f" {TIMES} {_UNITS.get(cell.unit, cell.unit)}" if cell.unit else "")


def direction_labels(summary: Summary) -> dict[str, str]:
    """A label for each direction by name: its source, and facts that distinguish it from others of the same source."""
    facts = [
        {
            "prompt": each.prompt,
            "pairs": each.pairs_seed,
            "estimator": f"{each.estimator} {each.part or ''}".strip() or None,
            "layer": each.layer,
            "site": each.site,
            "position": each.position,
        }
        for each in summary.directions
    ]
    needed = _distinguishing([(each.source, fields) for each, fields in zip(summary.directions, facts, strict=True)])
    words = {
        "prompt": " / {}",
        "pairs": ", pairs {}",
        "estimator": ", {}",
        "layer": ", layer {}",
        "site": ", {}",
        "position": ", position {}",
    }
    labels = {
        each.name: f"{each.source}"
        + "".join(words[name].format(value) for name, value in fields.items() if name in needed and value is not None)
        for each, fields in zip(summary.directions, facts, strict=True)
    }
    counts = Counter(labels.values())
    return {name: f"{label} ({name})" if counts[label] > 1 else label for name, label in labels.items()}


def setting_labels(summary: Summary) -> dict[Setting, tuple[str, str]]:
    """The labels of each edit, without and with its coefficient. In one figure, the labels with coefficient are all different."""
    origins = {each.name: each for each in summary.directions}
    figures: dict[str, dict[Setting, Cell]] = defaultdict(dict)
    for cell in summary.cells:
        figures[summary.edits[cell.action].figure if cell.edited else ""][setting_of(cell)] = cell
    labels: dict[Setting, tuple[str, str]] = dict.fromkeys(figures.pop("", {}), (BASELINE, BASELINE))
    for chosen in figures.values():
        labels |= _labels_of_figure(chosen, summary.edits, origins)
    return labels


def _labels_of_figure(
    chosen: Mapping[Setting, Cell], edits: Mapping[str, EditWords], origins: Mapping[str, DirectionFacts]
) -> dict[Setting, tuple[str, str]]:
    names = {setting: edits[cell.action].done if cell.source is None else cell.source for setting, cell in chosen.items()}
    parts = {setting: _parts(cell, edits[cell.action], origins.get(cell.direction or "")) for setting, cell in chosen.items()}
    needed = _distinguishing([(names[setting], fields) for setting, fields in parts.items()])
    # Where an edit acts affects its result, so this is named even if the source alone distinguishes two bars.
    needed |= {field for field in ("layers", "sites", "positions") if len({fields[field] for fields in parts.values()}) > 1}
    made = {
        setting: (
            names[setting] + "".join(text for field, text in fields.items() if field in needed - {"dose"}),
            "".join(text for field, text in fields.items() if field in needed & {"dose"}),
        )
        for setting, fields in parts.items()
    }
    counts = Counter(direction + dose for direction, dose in made.values())
    labels = {}
    for setting, (direction, dose) in made.items():
        name = f"{direction} ({chosen[setting].direction})" if counts[direction + dose] > 1 else direction
        labels[setting] = name, name + dose
    return labels


def _distinguishing(described: Sequence[tuple[object, Mapping[str, object]]]) -> set[str]:
    """The fields in which two items of the same source differ."""
    values: dict[tuple[object, str], set[object]] = defaultdict(set)
    for source, fields in described:
        for field, value in fields.items():
            values[source, field].add(value)
    return {field for (_, field), seen in values.items() if len(seen) > 1}


def _parts(cell: Cell, words: EditWords, origin: DirectionFacts | None) -> dict[str, str]:
    """Facts that may distinguish an edit from others of the same source, in the order of a label."""
    layer = cell.layer if cell.layer is not None or origin is None else origin.layer
    coefficient = "" if cell.coefficient is None else f", {TIMES} {cell.coefficient:g} {cell.unit or ''}".rstrip()
    where = "+".join(map(str, cell.layers)) if cell.layers else "its own layer" if words.own_layer else "all layers"
    return {
        "done": f", {words.done}",
        "prompt": f" / {origin.prompt}" if origin is not None and origin.prompt is not None else "",
        "pairs": "" if cell.pairs_seed is None else f", pairs {cell.pairs_seed}",
        "estimator": f", {cell.estimator}" if cell.estimator else "",
        "dimension": f", {cell.dimension} directions" if cell.dimension > 1 else "",
        "layer": "" if layer is None else f", layer {layer}",
        "layers": f", {words.done} at {where}",
        "sites": f", {'+'.join(cell.sites)}" if cell.sites else "",
        "positions": f", {cell.positions} positions" if cell.positions else "",
        "settings": "".join(f", {setting_text(name, value)}" for name, value in cell.settings.items()),
        "dose": coefficient,
    }
