"""A refusal direction that is found by gradient descent: refusal direction optimisation (Wollschlaeger et al. 2025).

The direction of length one minimises the losses of `vector_losses`. The search begins with another direction, usually the
difference of means. Source: arXiv 2502.17420, section 3.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from demur.core.progress import Progress, silent
from demur.directions.direction import Direction, from_raw
from demur.engine.checkpoints import Checkpoint
from demur.inputs.handed.handed_arguments import Instructions, PromptLike
from demur.measurements.gradient.descent import DEFAULT, Pairs, SearchSettings, descended
from demur.measurements.gradient.vector_losses import Example, LossWeights, VectorLosses, examples_of


@dataclass(frozen=True, eq=False)
class OptimisedDirection:
    """What a search found.

    Attributes:
        direction: the direction with the lowest loss, at the place and with the raw norm of the one that the search began with.
        losses: the loss over all training instructions: of the direction at the start, then after each epoch.
    """

    direction: Direction
    losses: tuple[float, ...]


def optimise_direction(
    checkpoint: Checkpoint,
    start: Direction,
    harmful: Instructions,
    harmless: Instructions,
    prompt: PromptLike,
    *,
    epochs: int = DEFAULT.epochs,
    batch: int = DEFAULT.batch,
    tokens: int = DEFAULT.tokens,
    rate: float = DEFAULT.rate,
    weights: LossWeights = DEFAULT.weights,
    progress: Progress = silent,
) -> OptimisedDirection:
    """Find a refusal direction by gradient descent. The weights of the checkpoint do not change.

    Args:
        checkpoint: a checkpoint that transformers runs.
        start: the direction that the search begins with, such as the difference of means. Its ablation and its addition at its
            own layer also write the completions that are aimed at.
        harmful: harmful training instructions.
        harmless: harmless training instructions, as many.
        prompt: the prompt format, its name, or a text with `{instruction}`.
        epochs: how often all instructions are gone through.
        batch: the number of instructions of each kind in one step.
        tokens: the length of the completions.
        rate: the step size of Adam.
        weights: the weights of the losses.
        progress: called with the number of instructions that were just used.

    Returns:
        The direction and the losses. It is the start itself if no epoch lowers the loss.

    Raises:
        InputError: for an engine without gradients, without instructions, and if the two sides differ in number.
        WorkError: if the loss is not finite.

    Example:
        >>> import demur
        >>> found = demur.optimise_direction(checkpoint, start, harmful, harmless, prompt)  # doctest: +SKIP
        >>> found.losses  # doctest: +SKIP
        (3.1, 2.2, 1.9, 1.8)

        The lines are skipped because they load a checkpoint.
    """
    engine, examples = examples_of(checkpoint, start, harmful, harmless, prompt, tokens)
    settings = SearchSettings(epochs, batch, tokens, rate, weights)
    best, losses = _descended(VectorLosses(engine, start, weights), start, examples, settings, progress)
    if losses[0] <= min(losses):
        return OptimisedDirection(start, losses)
    facts = start.provenance.replaced(method="gradient of ablate, add and retain losses")
    raw = best.double() / best.double().norm() * start.raw_norm
    found = from_raw(raw, name=start.name, layer=start.layer, position=start.position, site=start.site, provenance=facts)
    return OptimisedDirection(found, losses)


def _descended(
    search: VectorLosses, start: Direction, examples: Pairs, settings: SearchSettings, progress: Progress
) -> tuple[Float[Tensor, " d_model"], tuple[float, ...]]:
    """The vector with the lowest loss, and the loss at the start and after each epoch. Steps stay on the unit sphere."""

    def across(vector: Tensor, chosen: Sequence[Example]) -> Tensor:
        # `grad` gives the gradient of the vector alone; `backward` would also store those of the weights.
        (gradient,) = torch.autograd.grad(search.loss(vector, chosen), [vector])
        # Only the part across the vector turns it; its length is fixed.
        turning: Tensor = gradient - (gradient @ vector.detach()) * vector.detach()
        return turning

    return descended(
        start.vector,
        across,
        lambda vector: vector / vector.norm(),
        lambda vector: search.total(vector, examples, settings.batch),
        examples,
        settings,
        torch.Generator().manual_seed(0),
        progress,
    )
