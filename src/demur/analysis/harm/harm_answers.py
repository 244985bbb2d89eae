"""One sentence for each arm: what its two directions separate, and whether it refuses enough to tell harm from refusal."""

from collections.abc import Sequence

from demur.analysis.cell import Answer
from demur.analysis.cell_phrases import named
from demur.analysis.harm.harm_results import Area, HarmResult

NAMED = 4
"""Up to this many arms get a sentence of their own."""


def harm_answers(results: Sequence[HarmResult]) -> list[Answer]:
    """What the directions of each arm are directions of.

    Args:
        results: what `harm_results` gave.

    Returns:
        A sentence for each arm, or one for all of them if there are more than four. A sentence counts as shown if, among harmful
        instructions, one direction separates refused from answered ones: the interval of its area does not hold one half.
    """
    if len(results) <= NAMED:
        return [_sentence(one, several=len({each.arm.split("/")[0] for each in results}) < len(results)) for one in results]
    shown = sum(map(_separates_refusal, results))
    hardly = sum(one.hardly_refuses for one in results)
    text = (
        f"In {shown} of {len(results)} arms a direction separates refused from answered harmful instructions; {hardly} hardly "
        "refuse, so their directions are shown to be directions of harm only."
    )
    return [Answer(text=text, shown=shown > 0)]


def _separates_refusal(one: HarmResult) -> bool:
    areas = (each.refusal[one.layer] for each in one.separations)
    return not one.hardly_refuses and any(area is not None and not area.ci95[0] <= 0.5 <= area.ci95[1] for area in areas)


def _sentence(one: HarmResult, several: bool) -> Answer:
    checkpoint, _, prompt = one.arm.partition("/")
    arm = f"{named(checkpoint)} under {named(prompt)}" if several else named(checkpoint)
    at_instruction, at_prompt = one.separations
    harm = f"{_text(at_instruction.harm[one.layer])} and {_text(at_prompt.harm[one.layer])}"
    text = (
        f"In {arm} at layer {one.layer}, the directions at the last token of the instruction and of the prompt separate harmful "
        f"from harmless instructions with an AUROC of {harm}"
    )
    if one.split:
        which = "refused from answered ones" if one.split == "verdict" else "those more likely to be refused from the others"
        counts = f"{one.refused} against {one.answered}"
        areas = f"{_text(at_instruction.refusal[one.layer])} and {_text(at_prompt.refusal[one.layer])}"
        text += f", and among harmful ones {which} ({counts}) with {areas}"
    else:
        text += ", and too few harmful instructions are refused or answered to tell refusal from harm"
    if one.hardly_refuses:
        text += "; it hardly refuses, so its direction is shown to be one of harm, not of refusal"
    return Answer(text=f"{text}.", shown=_separates_refusal(one))


def _text(area: Area | None) -> str:
    return "an undefined one" if area is None else f"{area.auroc:.2f} [{area.ci95[0]:.2f}, {area.ci95[1]:.2f}]"
