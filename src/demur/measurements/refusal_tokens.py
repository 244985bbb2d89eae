"""Finds the first tokens of a checkpoint's refusals in its completions, and checks them on other completions.

The refusal score of Arditi et al. 2024 needs such tokens. A wrong id (a bare "I" where the model writes " I") gives plausible
scores that measure nothing. A checkpoint that almost never refuses has no such tokens. In that case an error recommends another
criterion.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from demur.core.errors import WorkError
from demur.core.progress import Progress, silent
from demur.engine import generate
from demur.engine.checkpoints import Checkpoint
from demur.inputs.handed.handed_arguments import Instructions, PromptLike, bound_pair
from demur.inputs.prompts import Prompt
from demur.interventions.intervention import RowEdits
from demur.judges.judging import judge

LEAST = 4
"""The smallest number of refusals in each half of the completions. Fewer do not show how refusals begin."""


@dataclass(frozen=True)
class RefusalTokens:
    """First tokens of refusals. `coverage` and `precision` are measured on completions that were not used to choose them.

    Attributes:
        ids: token ids.
        texts: the tokens as the tokenizer writes them.
        coverage: the share of refusals that begin with one of the tokens.
        precision: the share of refusals among completions that begin with one of the tokens.
        refusals: how many of the completions are refusals.
        n: the number of completions.
    """

    ids: tuple[int, ...]
    texts: tuple[str, ...]
    coverage: float
    precision: float
    refusals: int
    n: int


def find_refusal_tokens(
    checkpoint: Checkpoint,
    harmful: Instructions,
    harmless: Instructions,
    prompt: PromptLike,
    *,
    edits: RowEdits = None,
    judge_name: str = "prefix",
    max_new_tokens: int = 16,
    progress: Progress = silent,
) -> RefusalTokens:
    """Find the tokens with which refusals begin, on every second instruction, and check them on the others.

    Args:
        checkpoint: the loaded checkpoint.
        harmful: harmful instructions.
        harmless: harmless instructions.
        prompt: the prompt format, its name, or a text with `{instruction}`.
        edits: edits of the stream while the completions are made.
        judge_name: the judge that says what is a refusal.
        max_new_tokens: the length of a completion, in tokens.
        progress: called with the number of completions that were just finished.

    Returns:
        The tokens found, with their coverage and precision. A token is found if at least half of the completions that begin with
        it are refusals.

    Raises:
        WorkError: if a half has fewer than four refusals, or if fewer than nine in ten refusals of the second half begin with
            one of the tokens.

    Example:
        A checkpoint that refuses is needed, so this is not run as a doctest.

        >>> import demur
        >>> checkpoint = demur.load_checkpoint("Qwen/Qwen1.5-0.5B-Chat")  # doctest: +SKIP
        >>> prompt = demur.prompt_format("native", checkpoint)  # doctest: +SKIP
        >>> sides = [demur.load_instructions(f"contrast-{kind}").take("train", 32) for kind in ("harmful", "harmless")]
        >>> demur.find_refusal_tokens(checkpoint, *sides, prompt).texts  # doctest: +SKIP
    """
    prompt, harmful, harmless = bound_pair(checkpoint, harmful, harmless, prompt)
    rows = [_first_tokens(checkpoint, side, prompt, edits, judge_name, max_new_tokens, progress) for side in (harmful, harmless)]
    first = [row for side in rows for row in side[::2]]
    second = [row for side in rows for row in side[1::2]]
    for half in (first, second):
        _check_refusals(checkpoint.name, sum(refusal for _, refusal in half), len(half))
    written, refused = Counter(token for token, _ in first), Counter(token for token, refusal in first if refusal)
    ids = tuple(token for token, count in refused.most_common() if 2 * count >= written[token])
    begun = [refusal for token, refusal in second if token in ids]
    total = sum(refusal for _, refusal in second)
    coverage, precision = sum(begun) / total, sum(begun) / max(1, len(begun))
    if coverage < 0.9:
        raise WorkError(
            f"only {100 * coverage:.0f} % of the refusals of {checkpoint.name!r} begin with one of the tokens found, so they "
            "do not show whether it refuses; select by 'cosmic' or 'separation', or give token ids to demur.select_by_refusal"
        )
    texts = tuple(str(text) for text in checkpoint.tokenizer.convert_ids_to_tokens(list(ids)))
    return RefusalTokens(ids, texts, coverage, precision, total + sum(refusal for _, refusal in first), len(first) + len(second))


def _first_tokens(
    checkpoint: Checkpoint,
    instructions: Sequence[str],
    prompt: Prompt,
    edits: RowEdits,
    judge_name: str,
    max_new_tokens: int,
    progress: Progress,
) -> list[tuple[int, bool]]:
    """The first token of each completion, and whether the completion is a refusal."""
    made = generate.generate(checkpoint, instructions, prompt, [edits], max_new_tokens=max_new_tokens, progress=progress)[0]
    return [(row.token_ids[0], verdict.refusal) for row, verdict in zip(made, judge(made, judge_name), strict=True)]


def _check_refusals(name: str, refusals: int, n: int) -> None:
    if refusals < LEAST:
        raise WorkError(
            f"{name!r} refuses {refusals} of {n} completions, too few to tell how its refusals begin "
            f"(at least {LEAST} are needed); select by 'cosmic' or 'separation', which need no refusals, or give "
            "token ids to demur.select_by_refusal"
        )
