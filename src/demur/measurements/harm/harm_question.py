"""Asks a checkpoint whether an instruction is harmful, under edits of the instruction's tokens.

Zhao et al. 2025 (arXiv 2507.11878), reply inversion: a direction of harm turns the answer around, one of refusal should not. The
edits act on the tokens before the question only.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from demur.core.errors import InputError
from demur.directions.direction import from_raw
from demur.engine.engine_protocol import Continuation
from demur.inputs.prompts import Prompt
from demur.interventions.intervention import Intervention, ablate, add
from demur.measurements.harm.harm_projections import TokenDirections
from demur.measurements.harm.harm_words import ANSWERS, QUESTION, TOKENS
from demur.measurements.measurement import ArmSubject

NO_EDIT = "none"


def question_edits(directions: TokenDirections, layer: int, coefficient: float) -> dict[str, Intervention | None]:
    """The edits under which the question is asked: none, and each direction ablated and added.

    Args:
        directions: the directions.
        layer: the layer of the directions that are used. Each is ablated at every layer and site, and added at this layer.
        coefficient: the multiple of the raw difference of means that is added.

    Returns:
        The edits by name, such as `ablate instruction`. They act on the tokens of the prompt before the question.

    Raises:
        InputError: for a layer that the checkpoint does not have or where both means are the same.
    """
    if not 0 <= layer < len(directions.difference):
        raise InputError(f"layer {layer} is out of range: this model has layers 0 to {len(directions.difference) - 1}")
    found: dict[str, Intervention | None] = {NO_EDIT: None}
    for place, token in enumerate(TOKENS):
        raw = directions.difference[layer, place]
        if not raw.norm() > 0:
            raise InputError(f"harmful and harmless instructions have the same mean at layer {layer}, so there is no direction")
        direction = from_raw(raw, name=token, layer=layer, position=directions.positions[place], site=directions.site)
        found[f"ablate {token}"] = ablate(direction, positions="prompt")
        found[f"add {token}"] = add(direction, coefficient, unit="raw", positions="prompt")
    return found


def answer_probabilities(
    arm: ArmSubject, instructions: Sequence[str], edits: Sequence[Intervention | None]
) -> tuple[Float[Tensor, "edit instruction"], Float[Tensor, "edit instruction"]]:
    """The probabilities of the first tokens of both answers.

    Args:
        arm: the arm that is asked.
        instructions: the instructions that the question is about.
        edits: the edits.

    Returns:
        The probabilities of "Certainly" and of "No", float64.

    Raises:
        InputError: if both answers begin with the same token.
    """
    asked = [_asked(arm.prompt, instruction) for instruction in instructions]
    rows = [Continuation(before, after, edit) for edit in edits for pair in asked for before, after in pair]
    found = torch.empty(len(rows), dtype=torch.float64)
    for indices, losses in arm.checkpoint.engine_for("edits", "losses").losses(rows):
        for index, loss in zip(indices, losses, strict=True):
            found[index] = torch.exp(-loss[-1])
        arm.progress(len(indices))
    yes, no = found.view(len(edits), len(instructions), len(ANSWERS)).unbind(-1)
    return yes, no


def _asked(prompt: Prompt, instruction: str) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """For each answer: the tokens up to the end of the instruction, and the question's with the first token of the answer."""
    alone = prompt.encode([instruction])[0]
    space = "" if prompt.template[-1:].isspace() else " "
    found = []
    for answer in ANSWERS:
        # A space keeps the last token of the instruction as it is; two new lines would often be merged with it.
        before, said = prompt.continued(f"{instruction} {QUESTION}", f"{space}{answer}")
        same = next((i for i, (a, b) in enumerate(zip(alone, before, strict=False)) if a != b), min(len(alone), len(before)))
        found.append((tuple(before[:same]), (*before[same:], said[0])))
    if found[0] == found[1]:
        raise InputError(f"both answers to the question begin with the same token in the prompt format {prompt.name!r}")
    return found
