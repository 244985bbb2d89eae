"""What was measured at every layer, ready for figures and tables: which pairs are shown, and a point for every instruction.

A point knows what became of its instruction when the checkpoint was left alone, so that a place along a direction can be set
beside a verdict. Of a run that was not measured there is nothing to show.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from demur.report.cell_view import Entry, arm_labels
from demur.report.style import PALETTE

if TYPE_CHECKING:
    import pandas

MOST_LINES = 12
"""Pairs of arms in one figure; the table has them all."""

SETS = {"harmful": PALETTE[1], "harmless": PALETTE[0]}
"""Colours of instruction sets."""

Dash = TypeVar("Dash")


@dataclass(frozen=True)
class Line:
    """One number a layer, None where it is not defined."""

    name: str
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class Point:
    """One held-out instruction: where it lies along the direction, and the verdict on it when the checkpoint was left alone.

    `refused` is None where it is not answered yet.
    """

    instructions: str
    index: int
    along: float | None
    refused: bool | None

    @property
    def verdict(self) -> str:
        """The verdict in words."""
        return "not answered yet" if self.refused is None else "refused" if self.refused else "not refused"


@dataclass(frozen=True)
class Row:
    """The instructions of one arm along its own direction at one layer."""

    name: str
    layer: int
    points: tuple[Point, ...]


def arm_looks(measured: Mapping[str, Any], palette: Mapping[str, str], dashes: Sequence[Dash]) -> list[tuple[str, Dash]]:
    """Colour and dash of each measured arm: colour is the checkpoint, as everywhere; a dash the prompt format."""
    prompts, checkpoints = (list(dict.fromkeys(arm[key] for arm in measured["arms"])) for key in ("prompt", "checkpoint"))
    looks = []
    for arm in measured["arms"]:
        # Where there are more checkpoints than colours, their second round has other dashes.
        around = checkpoints.index(arm["checkpoint"]) // len(PALETTE)
        looks.append((palette[arm["checkpoint"]], dashes[(prompts.index(arm["prompt"]) + around * len(prompts)) % len(dashes)]))
    return looks


def arm_names(summary: Mapping[str, Any]) -> list[str]:
    """Labels of the measured arms."""
    labels = arm_labels(summary)
    return [labels.get((arm["checkpoint"], arm["prompt"]), arm["checkpoint"]) for arm in summary["by_layer"]["arms"]]


def cosine_lines(summary: Mapping[str, Any], *, every: bool = False, most: int | None = MOST_LINES) -> list[Line]:
    """Cosines by layer between arms of different checkpoints, of one prompt format where there are such; or of `every` two."""
    measured = summary.get("by_layer") or {"arms": [], "cosines": []}
    arms = measured["arms"]
    names = arm_names(summary) if arms else []
    pairs = [(pair["arms"][0], pair["arms"][1], pair["values"]) for pair in measured["cosines"]]
    across = [pair for pair in pairs if arms[pair[0]]["checkpoint"] != arms[pair[1]]["checkpoint"]]
    alike = [pair for pair in across if arms[pair[0]]["prompt"] == arms[pair[1]]["prompt"]]
    chosen = pairs if every else (alike or across or pairs)[:most]
    return [Line(f"{names[one]} and {names[other]}", tuple(values)) for one, other, values in chosen]


def instruction_rows(summary: Mapping[str, Any], found: Sequence[Entry], completions: "pandas.DataFrame") -> list[Row]:
    """Every arm and layer with a direction that was moved. `found` are one judge's entries; they give the verdicts."""
    measured = summary.get("by_layer")
    if not measured or not found:
        return []
    names, judge = arm_names(summary), found[0].judge
    alone = completions[completions["intervention"] == "none"]
    verdicts = {
        (target, prompt, kind, int(index)): bool(refused)
        for target, prompt, kind, index, refused in zip(
            *(alone[name] for name in ("target", "prompt", "instructions", "index", f"{judge}_refusal")), strict=True
        )
    }
    several = len({each["layer"] for each in measured["projections"]}) > 1
    rows = []
    for each in measured["projections"]:
        arm = measured["arms"][each["arm"]]
        points = []
        for kind in ("harmful", "harmless"):
            for index, along in enumerate(each[kind]):
                refused = verdicts.get((arm["checkpoint"], arm["prompt"], kind, index))
                points.append(Point(kind, index, along, refused))
        if any(point.along is not None for point in points):
            name = names[each["arm"]] + (f", layer {each['layer']}" if several else "")
            rows.append(Row(name, int(each["layer"]), tuple(points)))
    return rows


def null_band(measured: Mapping[str, Any]) -> list[list[float] | None]:
    """Of all arms the widest reach of random directions, by layer."""
    layers = zip(*(arm["null_auroc95"] for arm in measured["arms"]), strict=True)
    there = [[pair for pair in pairs if pair is not None] for pairs in layers]
    return [[min(low for low, _ in pairs), max(high for _, high in pairs)] if pairs else None for pairs in there]


def norm_shares(arm: Mapping[str, Any]) -> list[float | None]:
    """The direction's norm as a share of the mean norm of an activation, by layer."""
    sides = zip(arm["raw_norm"], arm["mean_norm"]["harmful"], arm["mean_norm"]["harmless"], strict=True)
    return [None if not norm or not high + low else 2 * norm / (high + low) for norm, high, low in sides]


def scattered(index: int) -> float:
    """The van der Corput sequence: places that keep clear of each other and are the same every time."""
    value, share = 0.0, 0.5
    while index:
        value, share, index = value + share * (index % 2), share / 2, index // 2
    return value
