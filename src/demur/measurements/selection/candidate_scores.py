"""Measures candidate directions. Each pair of a candidate and an instruction is one row, and rows share batches."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from demur.core.errors import InputError
from demur.core.progress import Progress, silent
from demur.directions.direction import Direction
from demur.engine.checkpoints import Checkpoint
from demur.engine.engine_protocol import Need, Row
from demur.inputs.prompts import Prompt
from demur.interventions.intervention import Intervention, RowEdits, ablate, add, edit_sequence
from demur.measurements.divergence import divergence, least_divergence
from demur.measurements.selection.candidates import Candidates
from demur.measurements.selection.ranking import Selection

Scores = dict[str, float]
"""The measures of one candidate by name."""

Stage = Callable[[Sequence[Direction]], list[Scores]]
"""Measures some candidates and gives the scores of each."""

Measure = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Takes instruction indices (row,), logits (row, vocab) and states (row, layer, d_model); gives one value or vector a row."""

PORTIONS = (1 / 8, 1 / 4, 1 / 2, 1)
"""After each of these shares of the instructions, candidates that will certainly be dropped are no longer measured."""

_PASSES_EVERY_FILTER = {"kl": -math.inf, "induce": math.inf, "bypass": 0.0, "comply": 0.0, "refuse": 0.0}
"""Scores that pass every filter. They are placeholders for measures that are not made yet."""


def ablations(directions: Sequence[Direction]) -> list[Intervention]:
    """The edit that ablates each direction at every layer and site."""
    return [ablate(direction) for direction in directions]


def additions(directions: Sequence[Direction]) -> list[Intervention]:
    """The edit that adds each direction once, with its raw norm, at its own layer and site."""
    return [add(direction, 1.0, unit="raw") for direction in directions]


def named_scores(name: str, values: Float[Tensor, " candidate"]) -> list[Scores]:
    """The values of one measure under its name, for each candidate."""
    return [{name: value} for value in values.tolist()]


def score_in_stages(
    candidates: Candidates, stages: Sequence[Stage], choose: Callable[[Sequence[Mapping[str, float | int]]], Selection]
) -> Selection:
    """Measure candidates stage by stage, and choose among them.

    A candidate that a filter drops after one stage is left out of the next stages. This does not change the choice.

    Args:
        candidates: the candidates.
        stages: what is measured, in order.
        choose: makes a selection from a table of scores.
    """
    scores: list[Scores] = [{"position": float(position), "layer": float(layer)} for position, layer in candidates.directions]
    directions = list(candidates.directions.values())
    for stage in stages:
        known = [{**_PASSES_EVERY_FILTER, **entry} for entry in scores]
        remaining = [index for index, place in enumerate(choose(known).places) if not place.dropped]
        if remaining:
            for index, found in zip(remaining, stage([directions[i] for i in remaining]), strict=True):
                scores[index] |= found
    return choose(scores)


def kl_stage(
    checkpoint: Checkpoint, instructions: Sequence[str], prompt: Prompt, most: float | int | None, progress: Progress
) -> Stage:
    """The stage that measures how much ablating a candidate changes the next-token distribution.

    A candidate gets `kl`, the mean over all instructions. If part of the instructions already shows that its mean will be above
    `most`, it gets `kl_at_least`, a lower bound, and is not measured further.

    Args:
        checkpoint: the checkpoint.
        instructions: harmless validation instructions.
        prompt: the prompt format.
        most: the upper bound of the filter, in nats; None for no filter.
        progress: called with the number of rows that were just measured.
    """

    def stage(directions: Sequence[Direction]) -> list[Scores]:
        before = sweep_rows(checkpoint, instructions, prompt, [None], lambda _, logits, __: logits, (), silent)[0]
        least = least_divergence(before)
        edits, n = ablations(directions), len(instructions)
        sums, remaining, done = least.sum().repeat(len(edits)), list(range(len(edits))), 0
        for end in sorted({math.ceil(share * n) for share in PORTIONS}):
            part, done = slice(done, end), end
            # NaN is not larger than any bound, so a candidate whose mean is NaN is measured to the end.
            remaining = [i for i in remaining if most is None or not sums[i] / n > most]
            if not remaining:
                break

            def change(which: Tensor, logits: Tensor, _: Tensor, known: Tensor = before[part]) -> Tensor:
                return divergence(known[which], logits)

            found = sweep_rows(checkpoint, instructions[part], prompt, [edits[i] for i in remaining], change, (), progress)
            sums[remaining] += (found - least[part]).sum(1)
        means = (sums / n).tolist()
        return [{"kl" if i in remaining else "kl_at_least": mean} for i, mean in enumerate(means)]

    return stage


def sweep_rows(
    checkpoint: Checkpoint,
    instructions: Sequence[str],
    prompt: Prompt,
    interventions: Iterable[RowEdits],
    measure: Measure,
    layers: Sequence[int],
    progress: Progress,
) -> Tensor:
    """Measure every instruction under every intervention, all as rows of the same batches.

    Args:
        checkpoint: the checkpoint.
        instructions: the instructions.
        prompt: the prompt format.
        interventions: what is done to the stream.
        measure: what is computed from the logits or states of a batch.
        layers: the layers whose states `measure` needs; empty if it needs logits.
        progress: called with the number of rows that were just measured.

    Returns:
        The values, (intervention, instruction, ...).

    Raises:
        InputError: if there are no instructions or no interventions.
    """
    ids, edits = [tuple(one) for one in prompt.encode(instructions)], list(interventions)
    rows = [Row(one, edit) for edit in edits for one in ids]
    result: Tensor | None = None
    # A candidate whose edit gives numbers that are not finite is dropped. Without an edit, all numbers must be finite.
    unedited = any(not edit_sequence(edit) for edit in edits)
    needs: tuple[Need, ...] = ("edits", "next tokens") if any(map(edit_sequence, edits)) else ("next tokens",)
    for found in checkpoint.engine_for(*needs).next_tokens(rows, layers=layers, finite_only=unedited):
        values = measure(torch.tensor(found.indices) % len(ids), found.logits, found.states)
        if result is None:
            result = torch.empty(len(rows), *values.shape[1:], dtype=values.dtype)
        result[found.indices] = values
        progress(len(found.indices))
    if result is None:
        raise InputError(f"nothing to score: {len(ids)} instructions, {len(edits)} interventions")
    return result.reshape(len(edits), len(ids), *result.shape[1:])
