"""Activations of instructions at some layers: all of them, or their means.

Instructions become token ids here and nowhere below; errors name the checkpoint and the instruction.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from demur.core.errors import InputError, NotFinite
from demur.core.progress import Progress, silent
from demur.directions.running_mean import RunningMean
from demur.engine.checkpoints import Checkpoint
from demur.engine.read_activations import stream_activations
from demur.inputs.prompts import Prompt
from demur.models.layouts import Site


def capture(
    checkpoint: Checkpoint,
    instructions: Sequence[str],
    prompt: Prompt,
    *,
    layers: Sequence[int] | None = None,
    site: Site = "resid_pre",
    position: int = -1,
    batch_tokens: int | None = None,
) -> Float[Tensor, "instruction layer d_model"]:
    """Residual-stream activations of each instruction at one prompt position, float32: at every layer unless told otherwise.

    `position` counts from the prompt's end, -1 is its last token. Raises `InputError` for a layer, site or position that is not
    there, and `WorkError` for activations that are not finite.
    """
    chosen = list(range(checkpoint.n_layers)) if layers is None else list(layers)
    found = _activations(checkpoint, instructions, prompt, chosen, site, position, batch_tokens)
    result = torch.empty(len(instructions), len(chosen), checkpoint.d_model)
    for indices, activations in found:
        result[indices] = activations
    return result


@dataclass(frozen=True)
class Means:
    """Mean activations of one instruction set in one checkpoint: (layer, d_model), and mean norms (layer,), in float64."""

    layers: tuple[int, ...]
    mean: Float[Tensor, "layer d_model"]
    mean_norm: Float[Tensor, " layer"]
    count: int


def mean_activations(
    checkpoint: Checkpoint,
    instructions: Sequence[str],
    prompt: Prompt,
    *,
    layers: Sequence[int],
    site: Site = "resid_pre",
    position: int = -1,
    batch_tokens: int | None = None,
    progress: Progress = silent,
) -> Means:
    """Streaming means: memory does not grow with the number of instructions. Raises `InputError` where there are none."""
    if not instructions:
        raise InputError("a mean activation needs at least one instruction")
    running = RunningMean()
    for indices, activations in _activations(checkpoint, instructions, prompt, layers, site, position, batch_tokens):
        running.update(activations)
        progress(len(indices))
    return Means(tuple(layers), running.mean, running.mean_norm, running.count)


def _activations(
    checkpoint: Checkpoint,
    instructions: Sequence[str],
    prompt: Prompt,
    layers: Sequence[int],
    site: Site,
    position: int,
    batch_tokens: int | None,
) -> Iterator[tuple[list[int], Tensor]]:
    found = stream_activations(
        checkpoint.model,
        checkpoint.layout,
        prompt.encode(instructions),
        layers=layers,
        site=site,
        positions=(position,),
        pad_id=checkpoint.pad_id,
        batch_tokens=batch_tokens,
    )
    return _named(found, checkpoint, instructions)


def _named(
    found: Iterator[tuple[list[int], Tensor]], checkpoint: Checkpoint, instructions: Sequence[str]
) -> Iterator[tuple[list[int], Tensor]]:
    try:
        for indices, activations in found:
            yield indices, activations[:, :, 0]
    except NotFinite as error:
        raise error.named(checkpoint.name, instructions[error.row]) from error
