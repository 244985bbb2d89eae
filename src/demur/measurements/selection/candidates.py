"""Candidate directions: what an estimator finds at every position after the instruction and at every layer, in one pass.

If harmful and harmless instructions have the same activation at a place, there is no direction, and the place is left out. An
example is a template token at the first layer's input.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from demur.core.errors import InputError
from demur.core.progress import Progress, silent
from demur.directions.direction import Direction, from_raw
from demur.directions.estimators.estimator import Side, fitted, mean_norms
from demur.directions.estimators.estimator import estimator as find_estimator
from demur.directions.running_mean import RunningMean
from demur.engine.checkpoints import Checkpoint
from demur.inputs.handed.handed_arguments import Instructions, PromptLike, bound_pair
from demur.inputs.prompts import Prompt
from demur.measurements.extraction import provenance, whole_side

Place = tuple[int, int]
"""(position, layer). Positions are counted from the prompt's end; -1 is its last token."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """One checkpoint's directions by place, and the means they were made from.

    Attributes:
        positions: the prompt positions, counted from the end.
        directions: place -> direction.
        harmful: means of the harmful instructions, (position, layer, d_model), float64.
        harmless: means of the harmless instructions.
    """

    positions: tuple[int, ...]
    directions: dict[Place, Direction]
    harmful: Float[Tensor, "position layer d_model"]
    harmless: Float[Tensor, "position layer d_model"]


def grid_activations(
    checkpoint: Checkpoint,
    instructions: Sequence[str],
    prompt: Prompt,
    positions: Sequence[int],
    *,
    batch_tokens: int | None = None,
    progress: Progress = silent,
) -> Float[Tensor, "instruction position layer d_model"]:
    """Activations at `resid_pre` of every layer. Memory grows with the number of instructions.

    Args:
        checkpoint: the loaded checkpoint.
        instructions: the instructions.
        prompt: the prompt format.
        positions: prompt positions, counted from the end.
        batch_tokens: the most tokens in a batch; found from the free memory unless given.
        progress: called with the number of instructions that were just read.

    Returns:
        (instruction, position, layer, d_model), float32.
    """
    result = torch.empty(len(instructions), len(positions), checkpoint.n_layers, checkpoint.d_model)
    found = checkpoint.engine_for("activations").read(
        prompt.encode(instructions), layers=range(checkpoint.n_layers), positions=positions, batch_tokens=batch_tokens
    )
    for indices, activations in found:
        result[indices] = activations.transpose(1, 2)
        progress(len(indices))
    return result


def _grid_sides(
    checkpoint: Checkpoint,
    instructions: Sequence[str],
    prompt: Prompt,
    positions: Sequence[int],
    needs: str,
    progress: Progress,
) -> list[Side]:
    """What an estimator takes, one side for each position."""
    if needs == "activations":
        grid = grid_activations(checkpoint, instructions, prompt, positions, progress=progress)
        return [whole_side(grid[:, row]) for row in range(len(positions))]
    running, layers = RunningMean(), range(checkpoint.n_layers)
    ids = prompt.encode(instructions)
    stream = checkpoint.engine_for("activations").read(ids, layers=layers, positions=positions)
    for indices, activations in stream:
        running.update(activations.transpose(1, 2).flatten(1, 2))
        progress(len(indices))
    means = running.mean.reshape(len(positions), len(layers), -1)
    norms = running.mean_norm.reshape(len(positions), len(layers))
    return [Side(mean, norm, running.count) for mean, norm in zip(means, norms, strict=True)]


def candidate_directions(
    checkpoint: Checkpoint,
    harmful: Instructions,
    harmless: Instructions,
    prompt: PromptLike,
    *,
    positions: Sequence[int] | None = None,
    estimator: str = "difference-of-means",
    progress: Progress = silent,
) -> Candidates:
    """Candidate directions at every position after the instruction and every layer: Arditi et al. 2024, section 2.3.

    Args:
        checkpoint: the loaded checkpoint.
        harmful: harmful training instructions.
        harmless: harmless training instructions.
        prompt: the prompt format, its name, or a text with `{instruction}`.
        positions: prompt positions, counted from the end; all after the instruction unless given.
        estimator: a registered estimator, or `module:Class`.
        progress: called with the number of instructions that were just read.

    Returns:
        The candidates. A place at which both sides have the same activation has none.

    Raises:
        InputError: if the estimator is unknown, if an instruction set is empty, or if the prompt format ends with the
            instruction.

    Example:
        >>> import demur, torch
        >>> from transformers import GPT2Tokenizer, LlamaConfig, LlamaForCausalLM
        >>> config = LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
        >>> tokenizer = GPT2Tokenizer({"<|endoftext|>": 0, "a": 1, "b": 2}, [])
        >>> checkpoint = demur.wrap(LlamaForCausalLM(config), tokenizer)
        >>> found = demur.candidate_directions(checkpoint, ["b", "ab"], ["a", "aa"], "{instruction}a")
        >>> found.positions, sorted(found.directions)
        ((-1,), [(-1, 1)])
    """
    prompt, harmful, harmless = bound_pair(checkpoint, harmful, harmless, prompt)
    if not harmful or not harmless:
        raise InputError(f"candidates need instructions of both kinds, not {len(harmful)} harmful and {len(harmless)} harmless")
    where = prompt.positions() if positions is None else tuple(positions)
    if not where:
        raise InputError(f"prompt format {prompt.name!r} has no tokens after the instruction, where directions could be read")
    chosen = find_estimator(estimator)
    sides = [_grid_sides(checkpoint, side, prompt, where, chosen.needs, progress) for side in (harmful, harmless)]
    directions: dict[Place, Direction] = {}
    for row, position in enumerate(where):
        read = provenance(checkpoint, prompt, position, harmful, harmless).replaced(method=chosen.name.replace("-", " "))
        vectors, norms = fitted(chosen, sides[0][row], sides[1][row]), mean_norms(sides[0][row], sides[1][row])
        for layer in (layer for layer in range(checkpoint.n_layers) if vectors[layer].any()):
            directions[position, layer] = from_raw(
                vectors[layer],
                name=f"{checkpoint.name}.position{position}.layer{layer}",
                layer=layer,
                position=position,
                provenance=read.replaced(mean_residual_norm=float(norms[layer])),
            )
    means = (torch.stack([one.mean for one in side]) for side in sides)
    return Candidates(where, directions, *means)
