"""Finds the threshold of a gate from instructions for which it should be open and others for which it should be closed."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

from demur.core.errors import InputError
from demur.directions.direction import Direction
from demur.engine.checkpoints import Checkpoint
from demur.engine.conditions.row_gates import prompt_streams
from demur.inputs.handed.handed_arguments import Instructions, PromptLike, bound_prompt, instruction_list
from demur.interventions.gates.gate import Gate, Tokens


def find_gate(
    checkpoint: Checkpoint,
    condition: Direction,
    harmful: Instructions,
    harmless: Instructions,
    prompt: PromptLike,
    *,
    tokens: Tokens | str = "all",
) -> Gate:
    """Find the threshold of a gate that is open for harmful prompts and closed for harmless ones.

    Args:
        checkpoint: the checkpoint whose rows will be edited.
        condition: the condition direction.
        harmful: instructions for which the gate should be open; validation or training instructions, not those of a test.
        harmless: instructions for which it should be closed.
        prompt: the prompt format, its name, or a text with `{instruction}`.
        tokens: `all` for the mean over the prompt's tokens, `last` for its last token.

    Returns:
        The gate with the best F1 over these instructions, in the middle of the widest gap between cosines that reaches it. If
        harmful prompts have the lower cosines, it is open below the threshold.

    Raises:
        InputError: if a side has no instructions.

    Example:
        >>> import demur
        >>> gate = demur.find_gate(checkpoint, condition, harmful, harmless, prompt)  # doctest: +SKIP
        >>> edit = demur.when(demur.add(direction, 1.0, unit="raw"), gate)  # doctest: +SKIP

        The lines are skipped because they load a checkpoint.
    """
    sides = []
    for label, instructions in (("harmful", harmful), ("harmless", harmless)):
        texts = instruction_list(instructions)
        if not texts:
            raise InputError(f"a gate needs {label} instructions, and there are none")
        sides.append(prompt_scores(checkpoint, condition, texts, prompt, tokens))
    threshold, above = best_threshold(*sides)
    return Gate(condition, threshold, above, tokens)


def prompt_scores(
    checkpoint: Checkpoint, condition: Direction, instructions: Sequence[str], prompt: PromptLike, tokens: Tokens | str
) -> list[float]:
    """The cosine of each unedited prompt with a condition direction.

    Args:
        checkpoint: the checkpoint that reads the prompts.
        condition: the condition direction.
        instructions: the instructions.
        prompt: the prompt format.
        tokens: `all` for the mean over the prompt's tokens, `last` for its last token.
    """
    gate = Gate(condition, 0.0, tokens=tokens)
    ids = [tuple(one) for one in bound_prompt(prompt, checkpoint).encode(instructions)]
    read = prompt_streams(list(dict.fromkeys(ids)), condition, tokens, checkpoint.engine.read)
    found = {one: gate.score(stream) for one, stream in read}
    return [found[one] for one in ids]


def best_threshold(harmful: Sequence[float], harmless: Sequence[float]) -> tuple[float, bool]:
    """The threshold with the best F1 for harmful prompts, of equal ones that in the widest gap, and whether above it is open.

    Args:
        harmful: the cosines of harmful prompts.
        harmless: those of harmless prompts.
    """
    values = sorted({*harmful, *harmless})
    gaps = list(pairwise(values)) or [(values[0], values[0])]
    return max(
        (((low + high) / 2, above) for low, high in gaps for above in (True, False)),
        key=lambda one: (f1(harmful, harmless, *one), _width(gaps, one[0]), one[1]),
    )


def _width(gaps: Iterable[tuple[float, float]], threshold: float) -> float:
    return max(high - low for low, high in gaps if low <= threshold <= high)


def f1(harmful: Sequence[float], harmless: Sequence[float], threshold: float, above: bool) -> float:
    """The F1 of a gate that should be open for harmful prompts.

    Args:
        harmful: the cosines of harmful prompts.
        harmless: those of harmless prompts.
        threshold: the threshold.
        above: whether it is open above the threshold, or else below it.
    """
    hits, false = (sum((value > threshold) == above for value in side) for side in (harmful, harmless))
    return 2 * hits / (hits + false + len(harmful))
