"""What a run answers, in three sentences computed from its cells: who refuses, and what moving directions takes away or brings.

Each names its rates with their intervals and says of what the data do not show that it is not shown. A direction counts as
acting where `summary.tested` says so: in the expected sense, after Holm's correction, beyond every null direction.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from demur.statistics import fisher, mcnemar, shared
from demur.summary import LEVEL, Refusals, Tested, dose, rate_text, tested, where

Cell = Mapping[str, Any]
Sentence = dict[str, Any]
"""`text`, and whether what it is about is `shown`."""

NAMED = 3
"""Checkpoints or cells up to this number are named one by one."""


def answers(
    cells: Sequence[Cell], compared: Sequence[Mapping[str, Any]], refusals: Refusals, judge: str, lineage: Sequence[str]
) -> list[Sentence]:
    """Three sentences about one judge's cells; `lineage` are the checkpoints in order."""
    mine = [cell for cell in cells if cell["judge"] == judge]
    tests = tested(cells, compared, refusals, judge)
    if not mine:
        return []
    return [_left_alone(mine, refusals, judge, lineage), _moved("ablate", tests, mine), _moved("add", tests, mine)]


def _left_alone(cells: Sequence[Cell], refusals: Refusals, judge: str, lineage: Sequence[str]) -> Sentence:
    alone = sorted((cell for cell in cells if cell["intervention"] == "none"), key=lambda cell: lineage.index(cell["target"]))
    harmful = [cell for cell in alone if cell["instructions"] == "harmful"]
    harmless = {(cell["target"], cell["prompt"]): cell for cell in alone if cell["instructions"] == "harmless"}
    twins = [(cell, harmless[place]) for cell in harmful if (place := (cell["target"], cell["prompt"])) in harmless]
    if not twins:
        return {
            "text": "How often each checkpoint refuses when left alone is not shown: these cells are not finished.",
            "shown": False,
        }
    told = twins
    if len(twins) > NAMED:
        told = [pick(twins, key=lambda twin: twin[0]["rate"]) for pick in (min, max)]
    named = [f"{where(one, cells)} {rate_text(one)} and {rate_text(other)}" for one, other in told[1:]]
    one, other = told[0]
    said = f"{where(one, cells)} refuses {rate_text(one)} of harmful and {rate_text(other)} of harmless instructions"
    if len(told) < len(twins):
        said = f"of {len(twins)} arms {said} at the least and {named[0]} at the most"
    elif named:
        said = f"{said}, {_listed(named)}"
    said = f"Left alone, {said}"
    first, last = twins[0][0], twins[-1][0]
    if first["target"] == last["target"]:
        one, other = twins[0]
        p = fisher(one["refusals"], one["n"], other["refusals"], other["n"])
        shown, against = p < LEVEL and one["rate"] > other["rate"], "harmful ones are refused more often"
    else:
        paired = mcnemar(*shared(refusals[first["key"], judge], refusals[last["key"], judge]))
        p, shown = paired.p_value, paired.p_value < LEVEL and paired.difference != 0
        points = f"{100 * abs(paired.difference):.0f} points {'more' if paired.difference > 0 else 'fewer'}"
        against = f"{where(last, cells)} refuses {points} of the harmful ones than {where(first, cells)}"
    verdict = f"{against} ({_p(p)})" if shown else f"that {against} is not shown ({_p(p)})"
    return {"text": f"{said}; {verdict}.", "shown": shown}


_ACTS = {
    "ablate": ("Ablating {} takes refusals of harmful instructions", "lowers refusals of harmful instructions"),
    "add": ("Adding {} takes refusals of harmless instructions", "raises refusals of harmless instructions"),
}
_VERB = {"ablate": ("ablating", "in"), "add": ("adding", "to")}


def _moved(kind: str, tests: Sequence[Tested], cells: Sequence[Cell]) -> Sentence:
    """What directions of other checkpoints do, the strongest case first; those of its own where there are no others."""
    verb, into = _VERB[kind]
    every = [test for test in tests if test.cell["intervention"] == kind]
    across = [test for test in every if test.cell["source"] != test.cell["target"]] or every
    if not across:
        return {"text": f"What {verb} a direction does is not shown: this run has no such cell.", "shown": False}
    across = sorted(across, key=lambda test: -abs(test.row["difference"]))
    shown, rest = [test for test in across if test.shown], [test for test in across if not test.shown]
    takes, does = _ACTS[kind]
    own = all(test.cell["source"] == test.cell["target"] for test in across)
    whose = "a checkpoint's own direction" if own else "another checkpoint's direction"
    others = "; ".join(f"{_edit(test, into, every, cells)} ({_change(test)})" for test in rest[:NAMED])
    others += f"; and {len(rest) - NAMED} more" if len(rest) > NAMED else ""
    if not shown:
        return {"text": f"That {verb} {whose} {does} is not shown: {others}.", "shown": False}
    best = shown[0]
    text = f"{takes.format(_edit(best, into, every, cells))} {_change(best)} ({_beside(best, every, cells)})"
    if len(across) > 2:
        text = f"{verb.capitalize()} {whose} {does} in {len(shown)} of {len(across)} cells; most: {text[0].lower()}{text[1:]}"
    if rest:
        text += (
            f"; not shown for {others}"
            if len(across) <= 2
            else f"; not shown in the other {len(rest)}, such as {others.split('; ')[0]}"
        )
    return {"text": f"{text}.", "shown": True}


def _edit(test: Tested, into: str, every: Sequence[Tested], cells: Sequence[Cell]) -> str:
    """Whose direction in which checkpoint; layer, prompt and coefficient only where the study has several."""
    cell = test.cell
    facts = []
    if len({other.cell["layer"] for other in every}) > 1:
        facts.append(f"layer {cell['layer']}")
    if cell["intervention"] == "add" and len({dose(other.cell) for other in every}) > 1:
        facts.append(dose(cell))
    more = f" ({', '.join(facts)})" if facts else ""
    source = str(cell["direction"]).removesuffix(f".layer{cell['layer']}").replace(".", " under ", 1)
    return f"{source}'s direction{more} {into} {where(cell, cells)}"


def _change(test: Tested) -> str:
    return f"from {100 * test.row['baseline_rate']:.0f} % to {rate_text(test.cell)}"


def _beside(test: Tested, every: Sequence[Tested], cells: Sequence[Cell]) -> str:
    """The test, and what the target's own direction and the null directions do at the same place."""
    same = ("target", "prompt", "layer", "coefficient", "unit", "sites", "positions")
    own = [
        other
        for other in every
        if other is not test
        and other.cell["source"] == other.cell["target"]
        and all(other.cell[key] == test.cell[key] for key in same)
    ]
    facts = [_p(test.row["p_holm"], "Holm")]
    facts += [f"{where(other.cell, cells)}'s own to {rate_text(other.cell)}" for other in own[:1]]
    rates = sorted(100 * null["rate"] for null in test.nulls)
    if not rates:
        facts.append("no null direction was tried")
    else:
        facts.append(
            f"random ones to {rates[0]:.0f} %" + (f" to {rates[-1]:.0f} %" if f"{rates[-1]:.0f}" != f"{rates[0]:.0f}" else "")
        )
    return "; ".join(facts)


def _p(p: float, how: str = "") -> str:
    value = "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
    return f"{value}, {how}" if how else value


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
