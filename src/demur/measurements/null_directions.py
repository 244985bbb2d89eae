"""Makes null directions for a direction of one's own, with one pass over the training instructions for all of them."""

from collections.abc import Sequence
from dataclasses import replace

from demur.core.errors import InputError
from demur.directions.controls.control import control_direction, control_kind
from demur.directions.direction import Direction
from demur.directions.estimators.estimator import Side
from demur.engine.checkpoints import Checkpoint
from demur.inputs.handed.handed_arguments import Instructions, PromptLike, bound_pair
from demur.inputs.prompts import Prompt
from demur.inputs.training_texts import TrainingTexts
from demur.measurements.extraction import training_sides


def control_directions(
    checkpoint: Checkpoint,
    harmful: Instructions,
    harmless: Instructions,
    prompt: PromptLike,
    beside: Direction,
    *,
    kind: str,
    n: int = 20,
    seed: int = 0,
    topics: Sequence[str] = (),
    batch_tokens: int | None = None,
) -> list[Direction]:
    """Make null directions of one kind for a direction.

    Args:
        checkpoint: the checkpoint that the direction was extracted from.
        harmful: the harmful instructions that it was extracted from.
        harmless: the harmless ones.
        prompt: the prompt format, its name, or a text with `{instruction}`.
        beside: the direction that they are nulls for. They get its layer, site, position and raw norm.
        kind: a control such as `shuffled-labels`; with `-orthogonal` after it, without the part along `beside`.
        n: how many.
        seed: another seed gives other directions.
        topics: the topic of each harmful instruction, for the kind `topics`; without them, shared words decide.
        batch_tokens: tokens in a batch, padding included; found from the free memory if None.

    Returns:
        The null directions, named `topics-1`, `topics-2`, ... Their provenance has the cosine of each with `beside`.

    Raises:
        InputError: for an unknown kind, for instructions that give fewer than `n` directions, for a wrong number of topics.
        WorkError: if activations are not finite.

    Example:
        >>> import demur
        >>> from transformers import GPT2Tokenizer, LlamaConfig, LlamaForCausalLM
        >>> config = LlamaConfig(vocab_size=8, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
        >>> tokenizer = GPT2Tokenizer({"<|endoftext|>": 0, "a": 1, "b": 2, "c": 3, "d": 4}, [])
        >>> checkpoint = demur.wrap(LlamaForCausalLM(config), tokenizer, name="toy")
        >>> read = (checkpoint, ["ab", "aab", "abb"], ["cd", "ccd", "cdd"], "a{instruction}")
        >>> direction = demur.extract_direction(*read, layer=1)
        >>> nulls = demur.control_directions(*read, direction, kind="covariance-orthogonal", n=2)
        >>> [(null.name, null.provenance.control_of, null.provenance.cosine) for null in nulls]
        [('covariance-orthogonal-1', 'toy', 0.0), ('covariance-orthogonal-2', 'toy', 0.0)]
    """
    prompt, harmful, harmless = bound_pair(checkpoint, harmful, harmless, prompt)
    if topics and len(topics) != len(harmful):
        raise InputError(f"{len(topics)} topics were given for {len(harmful)} harmful instructions; give one for each of them")
    sides: tuple[Side | None, Side | None] = (None, None)
    control = control_kind(kind)
    if control.needs == "activations":
        high, low = _sides_of(beside, checkpoint, harmful, harmless, prompt, batch_tokens)
        sides = replace(high, texts=TrainingTexts(tuple(harmful), tuple(topics))), low
    return [
        control_direction(
            kind, beside, name=f"{control.name}-{number + 1}", seed=seed, harmful=sides[0], harmless=sides[1], number=number
        )
        for number in range(n)
    ]


def _sides_of(
    beside: Direction,
    checkpoint: Checkpoint,
    harmful: Sequence[str],
    harmless: Sequence[str],
    prompt: Prompt,
    batch_tokens: int | None,
) -> tuple[Side, Side]:
    """Whole training activations at the place of a direction."""
    return training_sides(
        checkpoint,
        harmful,
        harmless,
        prompt,
        layers=[beside.layer],
        needs="activations",
        site=beside.site,
        position=beside.position,
        batch_tokens=batch_tokens,
    )
