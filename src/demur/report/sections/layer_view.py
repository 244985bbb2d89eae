"""The measurements at every layer, prepared for figures and tables: the pairs that are shown, and a point for each instruction.

A point has the verdict on its instruction without an edit, so that its projection can be compared with the verdict.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from demur.analysis.summary import ArmByLayer, ByLayer, Summary
from demur.report.cell_labels import arm_labels
from demur.report.cell_view import Entry, is_verdict
from demur.report.style import PALETTE

if TYPE_CHECKING:
    import pandas

MOST_LINES = 12
"""The most pairs of arms in one figure. The table has every pair."""

SETS = {"harmful": PALETTE[1], "harmless": PALETTE[0]}
"""Colours of instruction sets."""

Values = tuple[float | None, ...]
"""One number for each layer, None if it is not defined."""


@dataclass(frozen=True)
class Place:
    """The projection of one held-out instruction on the direction.

    Attributes:
        instructions: the instruction set.
        index: the instruction's place in the set.
        along: its projection, None if there is no direction.
        refused: the verdict on the completion without an edit, None if there is none.
    """

    instructions: str
    index: int
    along: float | None
    refused: bool | None

    @property
    def verdict(self) -> str:
        """The verdict in words."""
        return "no verdict" if self.refused is None else "refused" if self.refused else "not refused"


@dataclass(frozen=True)
class PlacesOfArm:
    """The held-out instructions of one arm along its own direction at one layer."""

    name: str
    layer: int
    places: tuple[Place, ...]

    def of(self, instructions: str) -> list[tuple[Place, float]]:
        """The instructions of one set that have a projection, each with its projection."""
        return [(each, each.along) for each in self.places if each.instructions == instructions and each.along is not None]


def arm_looks(measured: ByLayer, palette: Mapping[str, str], dashes: int = 4) -> list[tuple[str, int]]:
    """Colour and dash of each measured arm: the colour shows the checkpoint, the dash the prompt format."""
    prompts = list(dict.fromkeys(arm.prompt for arm in measured.arms))
    checkpoints = list(dict.fromkeys(arm.checkpoint for arm in measured.arms))
    looks = []
    for arm in measured.arms:
        # If there are more checkpoints than colours, those that share a colour have different dashes.
        around = checkpoints.index(arm.checkpoint) // len(PALETTE)
        looks.append((palette[arm.checkpoint], (prompts.index(arm.prompt) + around * len(prompts)) % dashes))
    return looks


def arm_names(summary: Summary) -> list[str]:
    """Labels of the measured arms."""
    labels = arm_labels(summary)
    measured = summary.by_layer.arms if summary.by_layer else ()
    return [labels.get((arm.checkpoint, arm.prompt), arm.checkpoint) for arm in measured]


def cosine_pairs(summary: Summary, *, every: bool = False, most: int | None = MOST_LINES) -> list[tuple[str, Values]]:
    """Cosines by layer between the directions of two arms, with the pair's name.

    Args:
        summary: the summary of the run.
        every: whether to give all pairs. If not, only pairs of different checkpoints are given; if some of these have the same
            prompt format, only those.
        most: the largest number of pairs if `every` is false; None for no limit.

    Returns:
        Names and values; none if layers were not measured.
    """
    if summary.by_layer is None:
        return []
    arms, names = summary.by_layer.arms, arm_names(summary)
    pairs = [(pair.arms[0], pair.arms[1], pair.values) for pair in summary.by_layer.cosines]
    across = [pair for pair in pairs if arms[pair[0]].checkpoint != arms[pair[1]].checkpoint]
    alike = [pair for pair in across if arms[pair[0]].prompt == arms[pair[1]].prompt]
    chosen = pairs if every else (alike or across or pairs)[:most]
    return [(f"{names[one]} and {names[other]}", values) for one, other, values in chosen]


def instruction_places(summary: Summary, found: Sequence[Entry], completions: "pandas.DataFrame") -> list[PlacesOfArm]:
    """The instructions of each arm and layer whose direction the study uses. The verdicts are those of the judge of `found`."""
    measured = summary.by_layer
    if measured is None or not found:
        return []
    names, judge = arm_names(summary), found[0].judge
    unedited = completions[completions["intervention"] == "none"]
    verdicts = {
        (target, prompt, kind, int(index)): bool(refused)
        for target, prompt, kind, index, refused in zip(
            *(unedited[name] for name in ("target", "prompt", "instructions", "index", f"{judge}_refusal")), strict=True
        )
        if is_verdict(refused)
    }
    several = len({each.layer for each in measured.projections}) > 1
    rows = []
    for each in measured.projections:
        arm = measured.arms[each.arm]
        places = tuple(
            Place(kind, index, along, verdicts.get((arm.checkpoint, arm.prompt, kind, index)))
            for kind, values in (("harmful", each.harmful), ("harmless", each.harmless))
            for index, along in enumerate(values)
        )
        if any(place.along is not None for place in places):
            name = names[each.arm] + (f", layer {each.layer}" if several else "")
            rows.append(PlacesOfArm(name, each.layer, places))
    return rows


def null_band(measured: ByLayer) -> list[tuple[float, float] | None]:
    """The widest interval of random directions in any arm, by layer."""
    layers = zip(*(arm.null_auroc95 for arm in measured.arms), strict=True)
    return [_widest([(low, high) for pair in pairs if pair is not None for low, high in (_ends(pair),)]) for pairs in layers]


def _widest(pairs: Sequence[tuple[float, float]]) -> tuple[float, float] | None:
    return (min(low for low, _ in pairs), max(high for _, high in pairs)) if pairs else None


def _ends(pair: tuple[float | None, ...]) -> tuple[float, float]:
    low, high = pair
    assert low is not None
    assert high is not None
    return low, high


def bounds_of(pairs: Sequence[tuple[float | None, ...] | None]) -> tuple[tuple[float, float] | None, ...]:
    """Intervals by layer, None if there is none."""
    return tuple(None if pair is None else _ends(pair) for pair in pairs)


def norm_shares(arm: ArmByLayer) -> Values:
    """The direction's norm as a share of the mean norm of an activation, by layer."""
    sides = zip(arm.raw_norm, arm.mean_norm["harmful"], arm.mean_norm["harmless"], strict=True)
    return tuple(
        None if not norm or not (high or 0) + (low or 0) else 2 * norm / ((high or 0) + (low or 0)) for norm, high, low in sides
    )


def study_layers(summary: Summary) -> tuple[int, ...]:
    """The layers whose directions the study uses."""
    direction = summary.study.get("direction")
    layers = direction.get("layers") if isinstance(direction, dict) else None
    return tuple(layer for layer in layers if isinstance(layer, int)) if isinstance(layers, list) else ()


def ranges(values: Sequence[float | None]) -> str:
    """The lowest and the highest value with their layers, in words."""
    there = [(value, layer) for layer, value in enumerate(values) if value is not None]
    if not there:
        return "not defined"
    (low, at_low), (high, at_high) = min(there), max(there)
    return f"from {low:.2f} at layer {at_low} to {high:.2f} at layer {at_high}"


def layer_table(columns: Sequence[tuple[str, Sequence[object]]], count: int) -> "pandas.DataFrame":
    """A table with a row for each layer."""
    import pandas

    return pandas.DataFrame({"layer": [str(layer) for layer in range(count)], **dict(columns)})


def numbers_of(values: Sequence[float | None]) -> list[object]:
    """Values for a table, empty if they are not defined."""
    return ["" if value is None else float(value) for value in values]


def intervals_of(bounds: Sequence[tuple[float, float] | None]) -> list[str]:
    """Intervals in words, empty if there is none."""
    return ["" if pair is None else f"[{pair[0]:.3f}, {pair[1]:.3f}]" for pair in bounds]
