"""From stored verdicts to the numbers that are shown: rates with intervals, paired comparisons, claims.

Pure functions over what the store holds. A claim is a sentence with the figures it rests on; where the data do not show it, it
says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from demur.statistics import holm, mcnemar, shared, wilson

LEVEL = 0.05

Refusals = Mapping[tuple[str, str], Mapping[int, bool]]
"""(cell key, judge) -> instruction index -> refusal."""


def cell_rows(cells: Sequence[Mapping[str, Any]], refusals: Refusals, judges: Sequence[str]) -> list[dict[str, Any]]:
    """One row a cell and judge: what the cell is, n, refusals, rate, Wilson interval. Cells without completions are left out."""
    rows = []
    for cell in cells:
        for judge in judges:
            found = refusals.get((cell["key"], judge))
            if found:
                n, count = len(found), sum(found.values())
                rate = {"n": n, "refusals": count, "rate": count / n, "ci95": list(wilson(count, n))}
                rows.append({**cell, "judge": judge, **rate})
    return rows


def comparisons(cells: Sequence[Mapping[str, Any]], refusals: Refusals, judges: Sequence[str]) -> list[dict[str, Any]]:
    """Every edited cell against its own target without an edit, on the same instructions: exact McNemar, Holm within a judge."""
    baseline = {_place(cell): cell["key"] for cell in cells if cell["intervention"] == "none"}
    rows: list[dict[str, Any]] = []
    for judge in judges:
        family = []
        for cell in cells:
            before, after = refusals.get((baseline[_place(cell)], judge), {}), refusals.get((cell["key"], judge), {})
            first, second = shared(before, after)
            if cell["intervention"] == "none" or not first:
                continue
            paired = mcnemar(first, second)
            family.append(
                {
                    "key": cell["key"],
                    "judge": judge,
                    "n": paired.n,
                    "baseline_rate": sum(first) / paired.n,
                    "rate": sum(second) / paired.n,
                    "difference": paired.difference,
                    "gained": paired.gained,
                    "lost": paired.lost,
                    "p_value": paired.p_value,
                }
            )
        adjusted = holm([row["p_value"] for row in family])
        rows += [{**row, "p_holm": p} for row, p in zip(family, adjusted, strict=True)]
    return rows


def _place(cell: Mapping[str, Any]) -> tuple[str, str, str]:
    return cell["target"], cell["prompt"], cell["instructions"]


@dataclass(frozen=True)
class Tested:
    """One edited cell for which an effect is expected, with its comparison `row` and the null directions at the same place.

    `works`: the change is in the expected sense and holds after Holm's correction. `beats`: it also differs from the change that
    each null direction makes.
    """

    cell: Mapping[str, Any]
    row: Mapping[str, Any]
    nulls: tuple[Mapping[str, Any], ...]
    works: bool
    beats: bool

    @property
    def shown(self) -> bool:
        """Do the data show that the direction acts?"""
        return self.works and self.beats


def tested(
    cells: Sequence[Mapping[str, Any]], compared: Sequence[Mapping[str, Any]], refusals: Refusals, judge: str
) -> list[Tested]:
    """Ablations on harmful instructions, which should lower refusals, and additions on harmless ones, which should raise them."""
    mine = [cell for cell in cells if cell["judge"] == judge]
    by_key = {row["key"]: row for row in compared if row["judge"] == judge}
    found = []
    for cell in mine:
        expected = {("ablate", "harmful"): -1, ("add", "harmless"): 1}.get((cell["intervention"], cell["instructions"]))
        if expected is None or cell["control"]:
            continue
        row = by_key[cell["key"]]
        nulls = tuple(other for other in mine if other["control"] and _same_edit(other, cell))
        against = [_against(refusals, judge, null["key"], cell["key"]) for null in nulls]
        works = row["difference"] * expected > 0 and row["p_holm"] < LEVEL
        beats = all(difference * expected > 0 and p < LEVEL for difference, p in against)
        found.append(Tested(cell, row, nulls, works, beats))
    return found


def claims(
    cells: Sequence[Mapping[str, Any]], compared: Sequence[Mapping[str, Any]], refusals: Refusals, judge: str
) -> list[dict[str, Any]]:
    """Sentences about one judge's cells: how often each checkpoint refuses, and what each direction does where."""
    mine = [cell for cell in cells if cell["judge"] == judge]
    said = [
        _baseline_sentence(mine, cell) for cell in mine if cell["intervention"] == "none" and cell["instructions"] == "harmful"
    ]
    for test in tested(cells, compared, refusals, judge):
        text = _edit_sentence(test.cell, test.row, test.nulls, where(test.cell, mine))
        more = "" if test.beats or not test.works else " No more than a null direction does."
        said.append({"text": text + more, "shown": test.shown})
    # What is shown comes first; otherwise in the study's order.
    return sorted(said, key=lambda claim: not claim["shown"])


def _same_edit(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    same = ("target", "prompt", "instructions", "intervention", "layer", "sites", "coefficient", "unit", "positions")
    return all(one[key] == other[key] for key in same)


def _against(refusals: Refusals, judge: str, null: str, cell: str) -> tuple[float, float]:
    paired = mcnemar(*shared(refusals[null, judge], refusals[cell, judge]))
    return paired.difference, paired.p_value


def rate_text(cell: Mapping[str, Any]) -> str:
    """A cell's rate and interval in per cent."""
    low, high = cell["ci95"]
    return f"{100 * cell['rate']:.0f} % [{100 * low:.0f}, {100 * high:.0f}]"


def where(cell: Mapping[str, Any], cells: Sequence[Mapping[str, Any]]) -> str:
    """A cell's checkpoint, and its prompt format where the checkpoint has several."""
    prompts = {other["prompt"] for other in cells if other["target"] == cell["target"]}
    return f"{cell['target']} under {cell['prompt']}" if len(prompts) > 1 else str(cell["target"])


def _baseline_sentence(cells: Sequence[Mapping[str, Any]], cell: Mapping[str, Any]) -> dict[str, Any]:
    text = f"{where(cell, cells)} refuses {rate_text(cell)} of {cell['n']} harmful instructions"
    twin = [
        other
        for other in cells
        if other["intervention"] == "none" and other["instructions"] == "harmless" and _place(other)[:2] == _place(cell)[:2]
    ]
    text += f" and {rate_text(twin[0])} of {twin[0]['n']} harmless ones." if twin else "."
    return {"text": text, "shown": True}


def _edit_sentence(cell: Mapping[str, Any], row: Mapping[str, Any], nulls: Sequence[Mapping[str, Any]], where: str) -> str:
    whose = "its own direction" if cell["direction"] == cell["target"] else f"{cell['direction']}'s direction"
    if cell["intervention"] == "ablate":
        text = f"Ablating {whose} (layer {cell['layer']}) in {where}"
    else:
        text = f"Adding {whose} (layer {cell['layer']}, {dose(cell)}) to {where}"
    change = f"from {100 * row['baseline_rate']:.0f} % to {rate_text(cell)}"
    p = "p < 0.001" if row["p_holm"] < 0.001 else f"p = {row['p_holm']:.2g}"
    band = ", ".join(f"{100 * null['rate']:.0f} %" for null in nulls)
    beside = f"; null directions there give {band}" if band else ""
    return f"{text} takes refusals of {cell['instructions']} instructions {change} ({p}, Holm{beside})."


def dose(cell: Mapping[str, Any]) -> str:
    """A coefficient with its unit, in words."""
    unit = {"unit": "unit vectors", "raw": "x its raw norm", "residual": "x the residual norm"}[cell["unit"]]
    return f"{cell['coefficient']:g} {unit}"
