"""Cross-entropy under interventions: does an edit damage the model where it should do nothing?

The loss evaluation of Arditi et al. 2024, appendix E, on any text and on a checkpoint's own completions. Their activation
addition there has coefficient -1 on harmless text; which edits are evaluated here is the caller's choice.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from demur.core.errors import InputError
from demur.core.progress import Progress, silent
from demur.engine.checkpoints import Checkpoint
from demur.engine.engine_protocol import Continuation, Need
from demur.engine.generate import Completion
from demur.inputs.prompt_formats import SLOT
from demur.inputs.prompts import Prompt, prompt_format
from demur.interventions.intervention import RowEdits, edit_sequence


@dataclass(frozen=True)
class Loss:
    """Mean cross-entropy in nats a token, over all tokens of all texts together."""

    mean: float
    tokens: int

    @property
    def perplexity(self) -> float:
        """Exp of the mean."""
        return math.exp(self.mean)


def text_losses(
    checkpoint: Checkpoint,
    texts: Sequence[str],
    interventions: Sequence[RowEdits] = (None,),
    *,
    max_tokens: int = 256,
    progress: Progress = silent,
) -> list[Loss]:
    """Loss of plain text, one entry an intervention: every token but the first of at most `max_tokens`, BOS in front where the
    family has one. Raises `InputError` where no text has a second token.
    """
    if max_tokens < 1:
        raise InputError(f"max_tokens must be at least 1, not {max_tokens}")
    ids = [one[:max_tokens] for one in prompt_format(SLOT, checkpoint).encode(texts)]
    return _losses(checkpoint, [(one[:1], one[1:]) for one in ids if len(one) > 1], interventions, progress)


def completion_losses(
    checkpoint: Checkpoint,
    completions: Sequence[Completion | tuple[str, str]],
    prompt: Prompt,
    interventions: Sequence[RowEdits] = (None,),
    *,
    progress: Progress = silent,
) -> list[Loss]:
    """Loss of completions behind their prompts, one entry an intervention.

    A `Completion` is scored by the tokens that were generated; a pair (instruction, text) is tokenised together with its prompt.
    Raises `InputError` where there are no tokens to score.
    """
    given = []
    for one in completions:
        if isinstance(one, Completion):
            given.append((prompt.encode([one.instruction])[0], list(one.token_ids)))
        else:
            given.append(prompt.continued(*one))
    return _losses(checkpoint, [pair for pair in given if pair[1]], interventions, progress)


def _losses(
    checkpoint: Checkpoint,
    given: Sequence[tuple[Sequence[int], Sequence[int]]],
    interventions: Sequence[RowEdits],
    progress: Progress,
) -> list[Loss]:
    if not given or not interventions:
        raise InputError(f"nothing to score: {len(given)} texts with tokens, {len(interventions)} interventions")
    rows = [Continuation(tuple(prompt), tuple(behind), edits) for edits in interventions for prompt, behind in given]
    sums = [0.0] * len(interventions)
    needs: tuple[Need, ...] = ("edits", "losses") if any(map(edit_sequence, interventions)) else ("losses",)
    for indices, losses in checkpoint.engine_for(*needs).losses(rows):
        for index, loss in zip(indices, losses, strict=True):
            sums[index // len(given)] += float(loss.sum())
        progress(len(indices))
    tokens = sum(len(behind) for _, behind in given)
    return [Loss(total / tokens, tokens) for total in sums]
