"""What a run answers, in three or four sentences computed from its cells: who refuses, and what moving directions does.

Each names its rates with their intervals and says of what the data do not show that it is not shown. A direction counts as
acting where `claims.tested` says so: in the expected sense, after Holm's correction, beyond every null direction there is. Where
directions were added with a negative coefficient, a fourth sentence says what that takes away.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from demur.analysis.claims import Tested, apart, dose, is_own, rate_text, same_setting, source_of, tested, where
from demur.analysis.rates import Refusals
from demur.core import number_format
from demur.core.statistics import LEVEL, fisher, holm, mcnemar, shared

Cell = Mapping[str, Any]
Sentence = dict[str, Any]
"""`text`, and whether what it is about is `shown`."""

NAMED = 3
"""Checkpoints or cells up to this number are named one by one."""


def answers(
    cells: Sequence[Cell], compared: Sequence[Mapping[str, Any]], refusals: Refusals, judge: str, lineage: Sequence[str]
) -> list[Sentence]:
    """Three sentences or four about one judge's cells; `lineage` are the checkpoints in order."""
    mine = [cell for cell in cells if cell["judge"] == judge]
    tests = tested(cells, compared, refusals, judge)
    if not mine:
        return []
    said = [_left_alone(mine, refusals, judge, lineage)]
    there = {test.kind for test in tests}
    for kind in _ACTS:
        # A study that only subtracts is not told that nothing was added.
        if kind in there or kind == "ablate" or (kind == "add" and "subtract" not in there):
            said.append(_moved(kind, [test for test in tests if test.kind == kind], mine))
    return said


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
    picked = twins
    if len(twins) > NAMED:
        picked = [pick(twins, key=lambda twin: twin[0]["rate"]) for pick in (min, max)]
    named = [f"{where(one, cells)} {rate_text(one)} and {rate_text(other)}" for one, other in picked[1:]]
    one, other = picked[0]
    said = f"{where(one, cells)} refuses {rate_text(one)} of harmful and {rate_text(other)} of harmless instructions"
    if len(picked) < len(twins):
        said = f"of {len(twins)} arms {said} at the least and {named[0]} at the most"
    elif named:
        said = f"{said}, {_listed(named)}"
    said = f"Left alone, {said}"
    if twins[0][0]["target"] == twins[-1][0]["target"]:
        contrasts = [_harmful_against_harmless(*twin, cells) for twin in twins]
    else:
        contrasts = _last_against_first([one for one, _ in twins], cells, refusals, judge)
    adjusted, how = holm([p for *_, p in contrasts]), "Holm" if len(contrasts) > 1 else ""
    verdicts = [(against, likely and p < LEVEL, _p(p, how)) for (against, likely, _), p in zip(contrasts, adjusted, strict=True)]
    told = "; ".join(f"{against} ({p})" if holds else f"that {against} is not shown ({p})" for against, holds, p in verdicts)
    return {"text": f"{said}; {told}.", "shown": any(holds for _, holds, _ in verdicts)}


Contrast = tuple[str, bool, float]
"""What a test is of, whether the data point that way, and its p-value."""


def _harmful_against_harmless(harmful: Cell, harmless: Cell, cells: Sequence[Cell]) -> Contrast:
    place = where(harmful, cells)
    arm = "" if place == harmful["target"] else f" by {place}"
    p = fisher(harmful["refusals"], harmful["n"], harmless["refusals"], harmless["n"])
    return f"harmful ones are refused more often{arm}", harmful["rate"] > harmless["rate"], p


def _last_against_first(alone: Sequence[Cell], cells: Sequence[Cell], refusals: Refusals, judge: str) -> list[Contrast]:
    """The last checkpoint against the first under each prompt that both have; where they share none, their first arms."""
    first, last = ({cell["prompt"]: cell for cell in alone if cell["target"] == each["target"]} for each in (alone[0], alone[-1]))
    pairs = [(first[prompt], last[prompt]) for prompt in first if prompt in last]
    found = []
    for one, other in pairs or [(next(iter(first.values())), next(iter(last.values())))]:
        paired = mcnemar(*shared(refusals[one["key"], judge], refusals[other["key"], judge]))
        points = f"{100 * abs(paired.difference):.0f} points {'more' if paired.difference > 0 else 'fewer'}"
        against = f"{where(other, cells)} refuses {points} of the harmful ones than {where(one, cells)}"
        found.append((against if pairs else f"{against}, each under its own prompt", paired.difference != 0, paired.p_value))
    return found


_ACTS = {
    "ablate": ("Ablating {} takes refusals of harmful instructions", "lowers refusals of harmful instructions"),
    "add": ("Adding {} takes refusals of harmless instructions", "raises refusals of harmless instructions"),
    "subtract": (
        "Adding a negative multiple of {} takes refusals of harmful instructions",
        "lowers refusals of harmful instructions",
    ),
}
_VERB = {"ablate": ("ablating", "in"), "add": ("adding", "to"), "subtract": ("adding a negative multiple of", "to")}


def _moved(kind: str, every: Sequence[Tested], cells: Sequence[Cell]) -> Sentence:
    """What directions of other checkpoints do, the strongest case first; those of its own where there are no others."""
    verb, into = _VERB[kind]
    across = [test for test in every if test.cell["source"] != test.cell["target"]] or every
    if not across:
        return {"text": f"What {verb} a direction does is not shown: there are no completions of such a cell.", "shown": False}
    across = sorted(across, key=lambda test: -abs(test.row["difference"]))
    shown, rest = [test for test in across if test.shown], [test for test in across if not test.shown]
    takes, does = _ACTS[kind]
    own = all(test.cell["source"] == test.cell["target"] for test in across)
    whose = "a checkpoint's own direction" if own else "another checkpoint's direction"
    others = "; ".join(
        f"{_edit(test, into, every, cells)} ({_change(test)}{', ' if test.doubt else ''}{test.doubt})" for test in rest[:NAMED]
    )
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
    facts += apart(cell, [other.cell for other in every])
    more = f" ({', '.join(facts)})" if facts else ""
    return f"{source_of(cell)}'s direction{more} {into} {where(cell, cells)}"


def _change(test: Tested) -> str:
    return f"from {number_format.percent(test.row['baseline_rate'], test.row['n'])} to {rate_text(test.cell)}"


def _beside(test: Tested, every: Sequence[Tested], cells: Sequence[Cell]) -> str:
    """The test, and what the target's own direction and the null directions do at the same place."""
    own = [other for other in every if other is not test and is_own(other.cell) and same_setting(other.cell, test.cell)]
    facts = [_p(test.row["p_holm"], "Holm")]
    facts += [f"{where(other.cell, cells)}'s own to {rate_text(other.cell)}" for other in own[:1]]
    nulls = sorted(test.nulls, key=lambda null: null["rate"])
    reach = dict.fromkeys(number_format.percent(null["rate"], null["n"]) for null in (nulls[0], nulls[-1]))
    facts.append(f"random ones to {' to '.join(reach)}")
    return "; ".join(facts)


def _p(p: float, how: str = "") -> str:
    return f"{number_format.p_in_words(p)}, {how}" if how else number_format.p_in_words(p)


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
