"""Activations of instructions at some layers: those of each instruction, or their mean.

Errors name the checkpoint and the instruction.
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
    """Residual-stream activations of each instruction at one token position of its prompt.

    Args:
        checkpoint: the checkpoint that reads the instructions.
        instructions: the instructions.
        prompt: the prompt format.
        layers: the layers to read; every layer by default.
        site: where in each layer: `resid_pre`, `resid_mid` or `resid_post`.
        position: the token position, counted from the prompt's end: -1 is its last token.
        batch_tokens: the most tokens in a batch; by default a number that suits the device.

    Returns:
        The activations, (instruction, layer, d_model), float32 on the CPU.

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
    """
    chosen = list(range(checkpoint.n_layers)) if layers is None else list(layers)
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
    """

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
    """Mean activations, summed batch by batch, so memory does not grow with the number of instructions.

    Args:
        checkpoint: the checkpoint that reads the instructions.
        instructions: the instructions.
        prompt: the prompt format.
        layers: the layers to read.
        site: where in each layer.
        position: the token position, counted from the prompt's end.
        batch_tokens: the most tokens in a batch.
        progress: called after each batch with the number of its instructions.

    Returns:
        The means.

    Raises:
        InputError: if there are no instructions or no layers, and for a layer, site or position that does not exist.
        WorkError: for activations that are not finite.
    """
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
    engine = checkpoint.engine_for("activations")
    found = engine.read(prompt.encode(instructions), layers=layers, site=site, positions=(position,), batch_tokens=batch_tokens)
    return _named(found, checkpoint, instructions)


def _named(
    found: Iterator[tuple[list[int], Tensor]], checkpoint: Checkpoint, instructions: Sequence[str]
) -> Iterator[tuple[list[int], Tensor]]:
    try:
        for indices, activations in found:
            yield indices, activations[:, :, 0]
    except NotFinite as error:
        raise error.named(checkpoint.name, instructions[error.row]) from error
