"""What a run's data show, edit by edit: which effects hold, against which null directions, and the sentence for each.

Pure functions over cells and comparisons (`rates.py`). A claim is a sentence with the figures it rests on; where the data do
not show it, it says so, and why. Nothing is shown to act that was not held against a null direction of the same dose.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from demur.analysis.rates import Refusals, place
from demur.core import number_format
from demur.core.statistics import LEVEL, mcnemar, shared

Cell = Mapping[str, Any]
Kind = Literal["ablate", "add", "subtract"]

_SETTING = ("target", "prompt", "instructions", "intervention", "layer", "layers", "sites", "coefficient", "unit", "positions")
"""What two cells have in common that differ in nothing but their direction."""


@dataclass(frozen=True)
class Tested:
    """One edited cell for which an effect is expected, with its comparison `row` and the null directions at the same place.

    `works`: the change is in the expected sense and holds after Holm's correction. `beats`: it also differs from the change that
    each null direction makes. `controlled`: at least one of these is of the same dose; without one nothing is shown.
    """

    cell: Cell
    row: Mapping[str, Any]
    nulls: tuple[Cell, ...]
    works: bool
    beats: bool
    controlled: bool

    @property
    def kind(self) -> Kind:
        """What was done."""
        return kind_of(self.cell)

    @property
    def shown(self) -> bool:
        """Do the data show that the direction acts?"""
        return self.works and self.beats and self.controlled

    @property
    def doubt(self) -> str:
        """What speaks against a change that holds by itself; empty where nothing does, or where it does not hold."""
        if not self.works or self.shown:
            return ""
        if not self.beats:
            return "not shown to be more than a null direction does"
        return "no null direction of its norm was tried there" if self.nulls else "no null direction was tried there"


def tested(cells: Sequence[Cell], compared: Sequence[Mapping[str, Any]], refusals: Refusals, judge: str) -> list[Tested]:
    """Edits with the instructions on which they should act: ablating a direction, or adding a negative multiple of it, should
    lower refusals of harmful instructions, adding it should raise those of harmless ones.
    """
    mine = [cell for cell in cells if cell["judge"] == judge]
    by_key = {row["key"]: row for row in compared if row["judge"] == judge}
    found = []
    for cell in mine:
        expected = None if cell["intervention"] == "none" else _EXPECTED.get((kind_of(cell), cell["instructions"]))
        if expected is None or cell["control"]:
            continue
        row = by_key[cell["key"]]
        nulls = tuple(other for other in mine if other["control"] and same_setting(other, cell))
        against = [_against(refusals, judge, null["key"], cell["key"]) for null in nulls]
        works = row["difference"] * expected > 0 and row["p_holm"] < LEVEL
        beats = all(difference * expected > 0 and p < LEVEL for difference, p in against)
        found.append(Tested(cell, row, nulls, works, beats, any(_same_dose(null, cell) for null in nulls)))
    return found


def kind_of(cell: Cell) -> Kind:
    """What an edited cell's edit does; to add a negative multiple is to subtract."""
    if cell["intervention"] == "ablate":
        return "ablate"
    return "subtract" if cell["coefficient"] < 0 else "add"


_EXPECTED: dict[tuple[Kind, str], int] = {("ablate", "harmful"): -1, ("subtract", "harmful"): -1, ("add", "harmless"): 1}
"""The sense of the change that is expected of an edit, on the instructions where one is."""


def same_setting(one: Cell, other: Cell) -> bool:
    """Do two cells differ in nothing but their direction?"""
    # Runs of earlier versions say nothing of layers.
    return all(one.get(key) == other.get(key) for key in _SETTING)


def _same_dose(null: Cell, cell: Cell) -> bool:
    # A null direction has the raw norm of the direction it stands beside, and no other's.
    return cell["unit"] != "raw" or null.get("stands_beside") in (cell["direction"], cell["source"])


def _against(refusals: Refusals, judge: str, null: str, cell: str) -> tuple[float, float]:
    paired = mcnemar(*shared(refusals[null, judge], refusals[cell, judge]))
    return paired.difference, paired.p_value


def claims(cells: Sequence[Cell], compared: Sequence[Mapping[str, Any]], refusals: Refusals, judge: str) -> list[dict[str, Any]]:
    """Sentences about one judge's cells: how often each checkpoint refuses, and what each direction does where."""
    mine = [cell for cell in cells if cell["judge"] == judge]
    said = [
        _baseline_sentence(mine, cell) for cell in mine if cell["intervention"] == "none" and cell["instructions"] == "harmful"
    ]
    tests = tested(cells, compared, refusals, judge)
    for test in tests:
        alike = [other.cell for other in tests if other.cell["intervention"] == test.cell["intervention"]]
        more = f" {test.doubt[0].upper()}{test.doubt[1:]}." if test.doubt else ""
        said.append({"text": _edit_sentence(test, alike, where(test.cell, mine)) + more, "shown": test.shown})
    # What is shown comes first; otherwise in the study's order.
    return sorted(said, key=lambda claim: not claim["shown"])


def _baseline_sentence(cells: Sequence[Cell], cell: Cell) -> dict[str, Any]:
    text = f"{where(cell, cells)} refuses {rate_text(cell)} of {cell['n']} harmful instructions"
    twin = [
        other
        for other in cells
        if other["intervention"] == "none" and other["instructions"] == "harmless" and place(other)[:2] == place(cell)[:2]
    ]
    text += f" and {rate_text(twin[0])} of {twin[0]['n']} harmless ones." if twin else "."
    return {"text": text, "shown": True}


def _edit_sentence(test: Tested, alike: Sequence[Cell], where: str) -> str:
    cell, row = test.cell, test.row
    whose = "its own direction" if is_own(cell) else f"{source_of(cell)}'s direction"
    facts = [f"layer {cell['layer']}", *apart(cell, alike)]
    if cell["intervention"] == "ablate":
        text = f"Ablating {whose} ({', '.join(facts)}) in {where}"
    else:
        text = f"Adding {whose} ({', '.join((*facts, dose(cell)))}) to {where}"
    change = f"from {number_format.percent(row['baseline_rate'], row['n'])} to {rate_text(cell)}"
    p = number_format.p_in_words(row["p_holm"])
    band = ", ".join(number_format.percent(null["rate"], null["n"]) for null in test.nulls)
    beside = f"; null directions there give {band}" if band else ""
    return f"{text} takes refusals of {cell['instructions']} instructions {change} ({p}, Holm{beside})."


def rate_text(cell: Cell) -> str:
    """A cell's rate and interval in per cent."""
    return number_format.estimate(cell["rate"], tuple(cell["ci95"]), cell["n"])


def where(cell: Cell, cells: Sequence[Cell]) -> str:
    """A cell's checkpoint, and its prompt format where the checkpoint has several."""
    prompts = {other["prompt"] for other in cells if other["target"] == cell["target"]}
    return f"{cell['target']} under {cell['prompt']}" if len(prompts) > 1 else str(cell["target"])


def source_of(cell: Cell) -> str:
    """Where a cell's direction was read: the checkpoint, and its prompt format where the checkpoint has several."""
    return _arm(cell).replace(".", " under ", 1)


def _arm(cell: Cell) -> str:
    # A direction is named by its arm, and by its layer where the study has several; no name of an arm's parts has a dot.
    return str(cell["direction"]).removesuffix(f".layer{cell['layer']}")


def is_own(cell: Cell) -> bool:
    """Was the direction read from the very arm that it is used in?"""
    return cell["source"] == cell["target"] and _arm(cell) in (cell["target"], f"{cell['target']}.{cell['prompt']}")


def apart(cell: Cell, alike: Sequence[Cell]) -> list[str]:
    """Where an edit acts, in words, as far as others like it act elsewhere; and its layers, where they are not the usual ones."""
    done = "ablated" if cell["intervention"] == "ablate" else "added"
    facts = []
    if cell.get("layers"):
        facts.append(f"{done} at layer{'s' if len(cell['layers']) > 1 else ''} {', '.join(map(str, cell['layers']))}")
    elif any(other.get("layers") for other in alike):
        facts.append(f"{done} at every layer" if done == "ablated" else f"{done} there")
    if len({tuple(other["sites"]) for other in alike}) > 1:
        facts.append(f"at {' and '.join(cell['sites'])}" if cell["sites"] != ["all"] else "at all sites")
    if len({other["positions"] for other in alike}) > 1:
        facts.append(f"{cell['positions']} positions")
    return facts


def dose(cell: Cell) -> str:
    """A coefficient with its unit, in words."""
    unit = {"unit": "unit vectors", "raw": "x its raw norm", "residual": "x the residual norm"}[cell["unit"]]
    return f"{cell['coefficient']:g} {unit}"
