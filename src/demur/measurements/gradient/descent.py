"""Gradient descent as both searches do it: Adam over batches of instructions, on unit vectors. Their settings are here too."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from demur.core.progress import Progress
from demur.measurements.gradient.vector_losses import Example, LossWeights

Pairs = Sequence[tuple[Example, ...]]


@dataclass(frozen=True)
class SearchSettings:
    """How a search by gradient goes.

    Attributes:
        epochs: how often all instructions are gone through.
        batch: the number of instructions of each kind in one step.
        tokens: the length of the completions that are aimed at.
        rate: the step size of Adam.
        weights: the weights of the losses.
    """

    epochs: int = 3
    batch: int = 8
    tokens: int = 30
    rate: float = 0.01
    weights: LossWeights = field(default_factory=LossWeights)


DEFAULT = SearchSettings()


def descended(
    first: Tensor,
    gradient: Callable[[Tensor, Sequence[Example]], Tensor],
    moved_back: Callable[[Tensor], Tensor],
    whole: Callable[[Tensor], float],
    examples: Pairs,
    settings: SearchSettings,
    generator: torch.Generator,
    progress: Progress,
) -> tuple[Tensor, tuple[float, ...]]:
    """Gradient descent of one or several unit vectors.

    Args:
        first: what the search begins with.
        gradient: the gradient of the loss over some examples, without the part that would change a length.
        moved_back: takes what a step gave back to vectors of unit length.
        whole: the loss over all examples.
        examples: the examples of each pair of instructions.
        settings: epochs, batch and rate.
        generator: draws the order of the examples.
        progress: called with the number of pairs that were just used.

    Returns:
        What had the lowest loss, and the loss at the start and after each epoch.
    """
    vectors = first.clone().requires_grad_()
    optimiser = torch.optim.Adam([vectors], lr=settings.rate, betas=(0.9, 0.98), amsgrad=True)
    best, losses = first.clone(), [whole(first)]
    for _ in range(settings.epochs):
        order = torch.randperm(len(examples), generator=generator).tolist()
        for begin in range(0, len(order), settings.batch):
            chosen = [one for place in order[begin : begin + settings.batch] for one in examples[place]]
            optimiser.zero_grad()
            vectors.grad = gradient(vectors, chosen)
            torch.nn.utils.clip_grad_norm_([vectors], 10.0)
            optimiser.step()
            with torch.no_grad():
                vectors.copy_(moved_back(vectors))
            progress(min(settings.batch, len(order) - begin))
        losses.append(whole(vectors.detach()))
        if losses[-1] <= min(losses):
            best = vectors.detach().clone()
    return best, tuple(losses)
