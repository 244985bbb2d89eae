"""Reads the mean activations that affine edits move the stream to: `demur.stream_means`."""

from collections.abc import Sequence
from dataclasses import replace

from demur.core.progress import Progress, silent
from demur.directions.provenance import InstructionFacts, Provenance
from demur.engine.capture import Means, point_means
from demur.engine.checkpoints import Checkpoint
from demur.inputs.handed.handed_arguments import Instructions, PromptLike, bound_prompt, instruction_list
from demur.inputs.instructions import digest
from demur.inputs.prompts import Prompt
from demur.interventions.stream_means import Label, StreamMeans
from demur.measurements.extraction import provenance
from demur.models.layouts import Site, point


def stream_means(
    checkpoint: Checkpoint,
    instructions: Instructions,
    prompt: PromptLike,
    *,
    label: Label = "harmless",
    position: int = -1,
    batch_tokens: int | None = None,
    progress: Progress = silent,
) -> StreamMeans:
    """Mean activations of a checkpoint at every layer and site, for `demur.affine`. All points are read in one forward pass.

    Use training instructions, and the position at which the direction was read: the means then are those between which the
    direction points.

    Args:
        checkpoint: the checkpoint that is to be edited.
        instructions: the instructions; a list of texts, or of conversations with one user turn.
        prompt: the prompt format, its name, or a text with `{instruction}`.
        label: the label of the instructions, `harmless` or `harmful`.
        position: the prompt token that is read; -1 is the last.
        batch_tokens: the most tokens in a batch; found from the free memory if None.
        progress: called after each batch with the number of its instructions.

    Returns:
        The means, float64, with their provenance.

    Raises:
        InputError: if there are no instructions, if a position does not exist, and if the engine cannot read all points.
        WorkError: for activations that are not finite.

    Example:
        >>> import demur
        >>> from transformers import GPT2Tokenizer, LlamaConfig, LlamaForCausalLM
        >>> config = LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
        >>> tokenizer = GPT2Tokenizer({"<|endoftext|>": 0, "a": 1, "b": 2}, [])
        >>> checkpoint = demur.wrap(LlamaForCausalLM(config), tokenizer)
        >>> demur.stream_means(checkpoint, ["b", "ab"], "a{instruction}")
        StreamMeans('harmless', 5 points, position=-1, width=16)
    """
    prompt, texts = bound_prompt(prompt, checkpoint), instruction_list(instructions)
    return stream_means_at(checkpoint, texts, prompt, [position], label=label, batch_tokens=batch_tokens, progress=progress)[0]


def stream_means_at(
    checkpoint: Checkpoint,
    instructions: Sequence[str],
    prompt: Prompt,
    positions: Sequence[int],
    *,
    label: Label,
    batch_tokens: int | None = None,
    progress: Progress = silent,
) -> list[StreamMeans]:
    """The same at several positions, read in one pass. See `stream_means`."""
    found, _ = point_means(
        checkpoint, instructions, prompt, label=label, positions=positions, batch_tokens=batch_tokens, progress=progress
    )
    return [replace(one, provenance=means_provenance(checkpoint, prompt, one.position, label, instructions)) for one in found]


def stream_means_and_activations(
    checkpoint: Checkpoint,
    instructions: Sequence[str],
    prompt: Prompt,
    *,
    label: Label,
    site: Site,
    position: int,
    keep: Sequence[int],
    batch_tokens: int | None = None,
    progress: Progress = silent,
) -> tuple[StreamMeans, Means]:
    """The means at every layer and site, and those at one site of every layer with all activations of some layers.

    Args:
        checkpoint: the checkpoint.
        instructions: the instructions.
        prompt: the prompt format.
        label: their label.
        site: the site of the second means.
        position: the prompt token that is read.
        keep: the layers at which every activation is kept.
        batch_tokens: the most tokens in a batch; found from the free memory if None.
        progress: called after each batch with the number of its instructions.

    Returns:
        Both, from one pass.
    """
    (found,), kept = point_means(
        checkpoint,
        instructions,
        prompt,
        label=label,
        positions=[position],
        batch_tokens=batch_tokens,
        progress=progress,
        keep=[point(layer, site) for layer in keep],
    )
    whole = replace(found, provenance=means_provenance(checkpoint, prompt, position, label, instructions))
    n_layers = checkpoint.n_layers
    rows = whole.rows([point(layer, site) for layer in range(n_layers)])
    return whole, Means(tuple(range(n_layers)), whole.mean[rows], whole.mean_norm[rows], whole.count, kept)


def means_provenance(
    checkpoint: Checkpoint, prompt: Prompt, position: int, label: Label, instructions: Sequence[str]
) -> Provenance:
    """The provenance of means: weights, prompt, token read, and the instructions of their label."""
    read = provenance(checkpoint, prompt, position, (), ()).facts()
    facts = {key: value for key, value in read.items() if key not in ("harmful", "harmless")}
    made = InstructionFacts(n=len(instructions), sha256=digest(instructions))
    return Provenance.of({**facts, "method": "mean", label: made.model_dump(mode="json")})


def means_at_site(
    means: Means,
    checkpoint: Checkpoint,
    instructions: Sequence[str],
    prompt: Prompt,
    *,
    label: Label,
    site: Site,
    position: int,
) -> StreamMeans:
    """Means that were read at one site of some layers, with their provenance.

    Args:
        means: the means.
        checkpoint: the checkpoint that they were read in.
        instructions: the instructions.
        prompt: the prompt format.
        label: the label of the instructions.
        site: where in each layer.
        position: the prompt token that was read.
    """
    points = tuple(point(layer, site) for layer in means.layers)
    read = means_provenance(checkpoint, prompt, position, label, instructions)
    return StreamMeans(label, points, means.mean, means.mean_norm, means.count, position, read)
