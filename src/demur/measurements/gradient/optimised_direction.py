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
    epochs: int = 3,
    batch: int = 8,
    tokens: int = 30,
    rate: float = 0.01,
    weights: LossWeights | None = None,
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
    search = VectorLosses(engine, start, weights or LossWeights())
    best, losses = _descended(search, start, examples, epochs, batch, rate, progress)
    if losses[0] <= min(losses):
        return OptimisedDirection(start, losses)
    facts = start.provenance.replaced(method="gradient of ablate, add and retain losses")
    raw = best.double() / best.double().norm() * start.raw_norm
    found = from_raw(raw, name=start.name, layer=start.layer, position=start.position, site=start.site, provenance=facts)
    return OptimisedDirection(found, losses)


def _descended(
    search: VectorLosses,
    start: Direction,
    examples: Sequence[tuple[Example, ...]],
    epochs: int,
    batch: int,
    rate: float,
    progress: Progress,
) -> tuple[Float[Tensor, " d_model"], tuple[float, ...]]:
    """The vector with the lowest loss, and the loss at the start and after each epoch. Steps stay on the unit sphere."""
    vector = start.vector.clone().requires_grad_()
    optimiser = torch.optim.Adam([vector], lr=rate, betas=(0.9, 0.98), amsgrad=True)
    generator = torch.Generator().manual_seed(0)
    best, losses = vector.detach().clone(), [search.total(vector, examples, batch)]
    for _ in range(epochs):
        order = torch.randperm(len(examples), generator=generator).tolist()
        for first in range(0, len(order), batch):
            chosen = [one for place in order[first : first + batch] for one in examples[place]]
            optimiser.zero_grad()
            # `grad` gives the gradient of the vector alone; `backward` would also store those of the weights.
            (gradient,) = torch.autograd.grad(search.loss(vector, chosen), [vector])
            # Only the part across the vector turns it; its length is fixed.
            vector.grad = gradient - (gradient @ vector.detach()) * vector.detach()
            torch.nn.utils.clip_grad_norm_([vector], 10.0)
            optimiser.step()
            with torch.no_grad():
                vector /= vector.norm()
            progress(min(batch, len(order) - first))
        losses.append(search.total(vector, examples, batch))
        if losses[-1] <= min(losses):
            best = vector.detach().clone()
    return best, tuple(losses)
