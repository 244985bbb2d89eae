"""Cross-entropy under interventions, which shows whether an edit damages the model on unrelated text.

The loss evaluation of Arditi et al. 2024, appendix E, on any text and on a checkpoint's own completions. Arditi et al. add the
direction with coefficient -1 on harmless text there. Here the caller chooses the edits.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from demur.core.errors import InputError
from demur.core.progress import Progress, silent
from demur.engine.checkpoints import Checkpoint
from demur.engine.engine_protocol import Continuation, Need
from demur.engine.generate import Completion
from demur.inputs.handed.handed_arguments import PromptLike, bound_prompt, check_checkpoint
from demur.inputs.prompt_formats import SLOT
from demur.inputs.prompts import prompt_format
from demur.interventions.intervention import RowEdits, edit_sequence


@dataclass(frozen=True)
class Loss:
    """Mean cross-entropy over all tokens of all texts together.

    Attributes:
        mean: in nats per token.
        tokens: the number of tokens.
    """

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
    """Loss of plain text under interventions: Arditi et al. 2024, appendix E.

    Args:
        checkpoint: the loaded checkpoint.
        texts: the texts. Each begins with BOS if the family has one.
        interventions: each of them None, one edit, or several that act in order.
        max_tokens: how many tokens of a text are read. The first one is given, the others are scored.
        progress: called with the number of texts that were just scored.

    Returns:
        One loss for each intervention.

    Raises:
        InputError: if `max_tokens` is below 1, or if no text has a second token to score.

    Example:
        >>> import demur, torch
        >>> from transformers import GPT2Tokenizer, LlamaConfig, LlamaForCausalLM
        >>> config = LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
        >>> tokenizer = GPT2Tokenizer({"<|endoftext|>": 0, "a": 1, "b": 2}, [])
        >>> checkpoint = demur.wrap(LlamaForCausalLM(config), tokenizer)
        >>> edit = demur.ablate(demur.from_raw(torch.ones(16), name="d", layer=1))
        >>> plain, ablated = demur.text_losses(checkpoint, ["abab", "ba"], [None, edit])
        >>> plain.tokens, plain.mean > 0, plain.perplexity > 1
        (4, True, True)
    """
    if max_tokens < 1:
        raise InputError(f"max_tokens must be at least 1, not {max_tokens}")
    check_checkpoint(checkpoint)
    # These are texts of a corpus, in which a control token is one.
    whole = prompt_format(SLOT, checkpoint, control_tokens="tokens").encode(texts)
    ids = [one[:max_tokens] for one in whole]
    return _losses(checkpoint, [(one[:1], one[1:]) for one in ids if len(one) > 1], interventions, progress)


def completion_losses(
    checkpoint: Checkpoint,
    completions: Sequence[Completion | tuple[str, str]],
    prompt: PromptLike,
    interventions: Sequence[RowEdits] = (None,),
    *,
    progress: Progress = silent,
) -> list[Loss]:
    """Loss of completions after their prompts, under interventions: Arditi et al. 2024, appendix E.

    Args:
        checkpoint: the loaded checkpoint.
        completions: completions, which are scored by the tokens that were generated, or pairs (instruction, text), which are
            tokenised together with their prompts.
        prompt: the prompt format, its name, or a text with `{instruction}`.
        interventions: each of them None, one edit, or several that act in order.
        progress: called with the number of completions that were just scored.

    Returns:
        One loss for each intervention.

    Raises:
        InputError: if there are no tokens to score.

    Example:
        >>> import demur, torch
        >>> from transformers import GPT2Tokenizer, LlamaConfig, LlamaForCausalLM
        >>> config = LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
        >>> tokenizer = GPT2Tokenizer({"<|endoftext|>": 0, "a": 1, "b": 2}, [])
        >>> checkpoint = demur.wrap(LlamaForCausalLM(config), tokenizer)
        >>> prompt = demur.prompt_format("{instruction}a", checkpoint)
        >>> (loss,) = demur.completion_losses(checkpoint, [("b", "ab"), ("a", "b")], prompt)
        >>> loss.tokens, loss.mean > 0
        (3, True)
    """
    prompt = bound_prompt(prompt, checkpoint)
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
    rows = [Continuation(tuple(prompt), tuple(scored), edits) for edits in interventions for prompt, scored in given]
    found = row_losses(checkpoint, rows, progress)
    tokens = sum(len(scored) for _, scored in given)
    n = len(given)
    return [Loss(sum(found[start : start + n]) / tokens, tokens) for start in range(0, len(rows), n)]


def row_losses(checkpoint: Checkpoint, rows: Sequence[Continuation], progress: Progress = silent) -> list[float]:
    """The summed loss of each continuation.

    Args:
        checkpoint: the loaded checkpoint.
        rows: prompts with their continuations and edits.
        progress: called with the number of rows that were just scored.

    Returns:
        One number for each row, in nats: the sum over the tokens of its continuation.
    """
    needs: tuple[Need, ...] = ("edits", "losses") if any(edit_sequence(row.edits) for row in rows) else ("losses",)
    found = [0.0] * len(rows)
    for indices, losses in checkpoint.engine_for(*needs).losses(rows):
        for index, loss in zip(indices, losses, strict=True):
            found[index] = float(loss.sum())
        progress(len(indices))
    return found
