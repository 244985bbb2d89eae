"""Reads what an edit of kind `leace` has to know of the checkpoint that it edits: `demur.leace_facts`."""

from collections.abc import Sequence
from functools import partial

from demur.core.errors import InputError
from demur.core.progress import Progress, silent
from demur.directions.direction import Direction
from demur.engine.checkpoints import Checkpoint
from demur.inputs.handed.handed_arguments import Instructions, PromptLike, bound_pair
from demur.inputs.prompts import Prompt
from demur.interventions.facts.stream_spread import StreamSpread
from demur.interventions.stream_means import LABELS
from demur.interventions.target_facts import TargetFacts
from demur.measurements.extraction import provenance, training_sides
from demur.measurements.reference_means import stream_means
from demur.models.layouts import Site


def leace_facts(
    checkpoint: Checkpoint,
    harmful: Instructions,
    harmless: Instructions,
    prompt: PromptLike,
    directions: Sequence[Direction],
    *,
    batch_tokens: int | None = None,
    progress: Progress = silent,
) -> TargetFacts:
    """What the edit `leace` has to know: means at every layer and site, and the covariance where the directions were read.

    Directions of one layer, such as a direction and its null directions, need the facts of that layer only once.

    Args:
        checkpoint: the checkpoint that is to be edited.
        harmful: harmful training instructions.
        harmless: harmless training instructions.
        prompt: the prompt format, its name, or a text with `{instruction}`.
        directions: the directions of the edits, which were read at one position.
        batch_tokens: the most tokens in a batch; found from the free memory if None.
        progress: called after each batch with the number of its instructions.

    Returns:
        The facts, for `edit.with_facts(...)`.

    Raises:
        InputError: without instructions or directions, for a layer, site or position that does not exist, and if the engine
            cannot read all points.
        WorkError: for activations that are not finite.

    Example:
        >>> import demur
        >>> from transformers import GPT2Tokenizer, LlamaConfig, LlamaForCausalLM
        >>> config = LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
        >>> tokenizer = GPT2Tokenizer({"<|endoftext|>": 0, "a": 1, "b": 2}, [])
        >>> checkpoint = demur.wrap(LlamaForCausalLM(config), tokenizer)
        >>> texts = ["a", "ab"], ["b", "bb"], "a{instruction}"
        >>> direction = demur.extract_direction(checkpoint, *texts, layer=1)
        >>> facts = demur.leace_facts(checkpoint, *texts, [direction])
        >>> demur.edit("leace", direction).with_facts(facts).missing_facts
        ()
    """
    prompt, harmful, harmless = bound_pair(checkpoint, harmful, harmless, prompt)
    position = _position_of(directions)
    means = [
        stream_means(checkpoint, texts, prompt, label=label, position=position, batch_tokens=batch_tokens, progress=progress)
        for label, texts in zip(LABELS, (harmful, harmless), strict=True)
    ]
    sites = {site: sorted({one.layer for one in directions if one.site == site}) for site in {one.site for one in directions}}
    reading = partial(stream_spreads, checkpoint, harmful, harmless, prompt, batch_tokens=batch_tokens, progress=progress)
    spreads = [one for site, layers in sites.items() for one in reading(layers=layers, site=site, position=position)]
    return TargetFacts.of_means(*means, *spreads)


def _position_of(directions: Sequence[Direction]) -> int:
    """The one position at which directions were read. Raises `InputError` for none, and for several."""
    positions = list(dict.fromkeys(one.position for one in directions))
    if len(positions) != 1:
        found = f"directions of positions {', '.join(map(str, positions))}" if positions else "no direction"
        raise InputError(f"the facts of an edit are read at one position, but they got {found}; give directions of one position")
    return positions[0]


def stream_spreads(
    checkpoint: Checkpoint,
    harmful: Sequence[str],
    harmless: Sequence[str],
    prompt: Prompt,
    *,
    layers: Sequence[int],
    site: Site,
    position: int,
    batch_tokens: int | None = None,
    progress: Progress = silent,
) -> list[StreamSpread]:
    """How the training activations vary within the classes, at some layers, read in one pass.

    Args:
        checkpoint: the checkpoint that is to be edited.
        harmful: harmful training instructions.
        harmless: harmless training instructions.
        prompt: the prompt format.
        layers: the layers.
        site: the site of each.
        position: the prompt token that is read.
        batch_tokens: the most tokens in a batch; found from the free memory if None.
        progress: called with the number of instructions that were just read.

    Returns:
        The spread at each layer, in their order.
    """
    sides = training_sides(
        checkpoint,
        harmful,
        harmless,
        prompt,
        layers=layers,
        needs="activations",
        site=site,
        position=position,
        batch_tokens=batch_tokens,
        progress=progress,
    )
    read = provenance(checkpoint, prompt, position, harmful, harmless).replaced(method="deviations from the mean of each class")
    return [StreamSpread.of_sides(sides, row, layer, site, position, read) for row, layer in enumerate(layers)]
