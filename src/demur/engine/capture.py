"""Activations of instructions at some layers: those of each instruction, or their mean.

Errors name the checkpoint and the instruction.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, overload

import torch
from jaxtyping import Float
from torch import Tensor

from demur.core.errors import InputError, NotFinite
from demur.core.progress import Progress, silent
from demur.directions.running_mean import RunningMean
from demur.engine.checkpoints import Checkpoint
from demur.engine.engine_protocol import PointReader
from demur.inputs.handed.handed_arguments import Instructions, PromptLike, bound_prompt, instruction_list
from demur.inputs.prompts import Prompt
from demur.interventions.stream_means import Label, StreamMeans
from demur.models.layouts import Point, Site, point


@overload
def capture(
    checkpoint: Checkpoint,
    instructions: Instructions,
    prompt: PromptLike,
    *,
    layers: Sequence[int] | None = None,
    site: Site = "resid_pre",
    position: int = -1,
    positions: None = None,
    batch_tokens: int | None = None,
) -> Float[Tensor, "instruction layer d_model"]: ...


@overload
def capture(
    checkpoint: Checkpoint,
    instructions: Instructions,
    prompt: PromptLike,
    *,
    layers: Sequence[int] | None = None,
    site: Site = "resid_pre",
    positions: Literal["all"],
    batch_tokens: int | None = None,
) -> list[Float[Tensor, "token layer d_model"]]: ...


def capture(
    checkpoint: Checkpoint,
    instructions: Instructions,
    prompt: PromptLike,
    *,
    layers: Sequence[int] | None = None,
    site: Site = "resid_pre",
    position: int = -1,
    positions: Literal["all"] | None = None,
    batch_tokens: int | None = None,
) -> Float[Tensor, "instruction layer d_model"] | list[Tensor]:
    """Residual-stream activations of each instruction at one token position of its prompt, or at all of them.

    Args:
        checkpoint: the checkpoint that reads the instructions.
        instructions: the instructions; a list of texts, or of conversations with one user turn.
        prompt: the prompt format, its name, or a text with `{instruction}`.
        layers: the layers to read; every layer by default.
        site: where in each layer: `resid_pre`, `resid_mid` or `resid_post`.
        position: the token position, counted from the prompt's end: -1 is its last token.
        positions: `"all"` to read every token of each prompt, special tokens included.
        batch_tokens: the most tokens in a batch; by default a number that suits the device.

    Returns:
        The activations, (instruction, layer, d_model), float32 on the CPU. With `positions="all"`, a list with one tensor
        for each instruction, (token, layer, d_model), because prompts differ in length.

    Raises:
        InputError: if there are no layers, and for a layer, site or position that does not exist.
        WorkError: for activations that are not finite.

    Example:
        >>> import demur
        >>> from transformers import GPT2Tokenizer, LlamaConfig, LlamaForCausalLM
        >>> config = LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
        >>> tokenizer = GPT2Tokenizer({"<|endoftext|>": 0, "a": 1, "b": 2}, [])
        >>> checkpoint = demur.wrap(LlamaForCausalLM(config), tokenizer)
        >>> prompt = demur.prompt_format("a{instruction}", checkpoint)
        >>> demur.capture(checkpoint, ["b", "ab"], prompt).shape
        torch.Size([2, 2, 16])
        >>> [one.shape[0] for one in demur.capture(checkpoint, ["b", "ab"], prompt, positions="all")]
        [2, 3]
    """
    prompt, instructions = bound_prompt(prompt, checkpoint), instruction_list(instructions)
    chosen = list(range(checkpoint.n_layers)) if layers is None else list(layers)
    if positions is not None:
        if positions != "all" or position != -1:
            raise InputError(f'positions={positions!r} with position={position}; give positions="all" alone, or one position=')
        return _all_tokens(checkpoint, instructions, prompt, chosen, site, batch_tokens)
    found = _activations(checkpoint, instructions, prompt, chosen, site, position, batch_tokens)
    result = torch.empty(len(instructions), len(chosen), checkpoint.d_model)
    for indices, activations in found:
        result[indices] = activations
    return result


@dataclass(frozen=True)
class Means:
    """Mean activations of one instruction set in one checkpoint, in float64.

    Attributes:
        layers: the layers that were read.
        mean: the mean activation of each layer.
        mean_norm: the mean norm of each layer's activations.
        count: the number of instructions.
        kept: every activation at the layers that were to be kept, (instruction, layer, d_model), float32; None if none were.
    """

    layers: tuple[int, ...]
    mean: Float[Tensor, "layer d_model"]
    mean_norm: Float[Tensor, " layer"]
    count: int
    kept: Float[Tensor, "instruction kept_layer d_model"] | None = None


def mean_activations(
    checkpoint: Checkpoint,
    instructions: Instructions,
    prompt: PromptLike,
    *,
    layers: Sequence[int],
    site: Site = "resid_pre",
    position: int = -1,
    batch_tokens: int | None = None,
    progress: Progress = silent,
    keep: Sequence[int] = (),
) -> Means:
    """Mean activations, summed batch by batch, so memory does not grow with the number of instructions.

    Args:
        checkpoint: the checkpoint that reads the instructions.
        instructions: the instructions; a list of texts, or of conversations with one user turn.
        prompt: the prompt format, its name, or a text with `{instruction}`.
        layers: the layers to read.
        site: where in each layer.
        position: the token position, counted from the prompt's end.
        batch_tokens: the most tokens in a batch.
        progress: called after each batch with the number of its instructions.
        keep: those of the layers at which every activation is kept too.

    Returns:
        The means.

    Raises:
        InputError: if there are no instructions or no layers, and for a layer, site or position that does not exist.
        WorkError: for activations that are not finite.
    """
    prompt, instructions = bound_prompt(prompt, checkpoint), instruction_list(instructions)
    if not instructions:
        raise InputError("a mean activation needs at least one instruction")
    running, rows = RunningMean(), [list(layers).index(layer) for layer in keep]
    kept = torch.empty(len(instructions), len(rows), checkpoint.d_model) if rows else None
    for indices, activations in _activations(checkpoint, instructions, prompt, layers, site, position, batch_tokens):
        running.update(activations)
        if kept is not None:
            kept[indices] = activations[:, rows].float()
        progress(len(indices))
    return Means(tuple(layers), running.mean, running.mean_norm, running.count, kept)


def point_means(
    checkpoint: Checkpoint,
    instructions: Sequence[str],
    prompt: Prompt,
    *,
    label: Label,
    positions: Sequence[int] = (-1,),
    batch_tokens: int | None = None,
    progress: Progress = silent,
    keep: Sequence[Point] = (),
) -> tuple[list[StreamMeans], Float[Tensor, "instruction kept_point d_model"] | None]:
    """Mean activations at every layer and site of the family, read in one pass.

    Args:
        checkpoint: the checkpoint that reads the instructions.
        instructions: the instructions.
        prompt: the prompt format.
        label: their label.
        positions: token positions, counted from the prompt's end.
        batch_tokens: the most tokens in a batch.
        progress: called after each batch with the number of its instructions.
        keep: the points at which every activation of the first position is kept too.

    Returns:
        The means at each position, in their order, without provenance; and the activations that were to be kept, float32.

    Raises:
        InputError: if there are no instructions, if a position does not exist, and if the engine cannot read all points.
        WorkError: for activations that are not finite.
    """
    if not instructions:
        raise InputError("a mean activation needs at least one instruction")
    engine = checkpoint.engine_for("activations")
    if not isinstance(engine, PointReader):
        raise InputError(
            f"the engine {engine.name!r} of checkpoint {checkpoint.name!r} cannot read several points in one pass, which "
            "means at every layer and site need; load it with engine='transformers'"
        )
    layers = range(checkpoint.n_layers)
    points = tuple(sorted({point(layer, site) for layer in layers for site in engine.sites}))
    running, kept_rows = RunningMean(), [points.index(where) for where in keep]
    kept = torch.empty(len(instructions), len(keep), checkpoint.d_model) if keep else None
    found = engine.read_points(prompt.encode(instructions), points=points, positions=positions, batch_tokens=batch_tokens)
    for indices, read in _named(found, checkpoint, instructions):
        running.update(read.transpose(1, 2).flatten(1, 2))
        if kept is not None:
            kept[indices] = read[:, kept_rows, 0].float()
        progress(len(indices))
    means = running.mean.reshape(len(positions), len(points), -1)
    norms = running.mean_norm.reshape(len(positions), len(points))
    made = [
        StreamMeans(label, points, mean, norm, running.count, position)
        for position, mean, norm in zip(positions, means, norms, strict=True)
    ]
    return made, kept


def _activations(
    checkpoint: Checkpoint,
    instructions: Sequence[str],
    prompt: Prompt,
    layers: Sequence[int],
    site: Site,
    position: int,
    batch_tokens: int | None,
) -> Iterator[tuple[list[int], Tensor]]:
    engine = checkpoint.engine_for("activations")
    found = engine.read(prompt.encode(instructions), layers=layers, site=site, positions=(position,), batch_tokens=batch_tokens)
    return ((indices, read[:, :, 0]) for indices, read in _named(found, checkpoint, instructions))


def _all_tokens(
    checkpoint: Checkpoint,
    instructions: Sequence[str],
    prompt: Prompt,
    layers: Sequence[int],
    site: Site,
    batch_tokens: int | None,
) -> list[Tensor]:
    """The activations of every token. Prompts of one length are read together, because a position has to be in all of them."""
    engine, prompts = checkpoint.engine_for("activations"), prompt.encode(instructions)
    result = [torch.empty(len(ids), len(layers), checkpoint.d_model) for ids in prompts]
    for length in sorted(set(map(len, prompts)), reverse=True):
        alike = [number for number, ids in enumerate(prompts) if len(ids) == length]
        found = engine.read(
            [prompts[number] for number in alike],
            layers=layers,
            site=site,
            positions=range(-length, 0),
            batch_tokens=batch_tokens,
        )
        for indices, read in _named(found, checkpoint, [instructions[number] for number in alike]):
            for index, activations in zip(indices, read, strict=True):
                result[alike[index]] = activations.transpose(0, 1)
    return result


def _named(
    found: Iterator[tuple[list[int], Tensor]], checkpoint: Checkpoint, instructions: Sequence[str]
) -> Iterator[tuple[list[int], Tensor]]:
    try:
        yield from found
    except NotFinite as error:
        raise error.named(checkpoint.name, instructions[error.row]) from error
