"""Several refusal directions that are found together by gradient descent: a refusal cone (Wollschlaeger et al. 2025).

The cone consists of all sums of k orthonormal vectors with weights of at least zero. Each direction in it should do what one
refusal direction does, so the losses of `vector_losses` are averaged over the k vectors and over directions drawn from the cone.
Source: arXiv 2502.17420, section 4.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from demur.core.errors import InputError
from demur.core.progress import Progress, silent
from demur.directions.direction import Direction, from_raw
from demur.directions.subspace import Subspace
from demur.engine.checkpoints import Checkpoint
from demur.inputs.handed.handed_arguments import Instructions, PromptLike
from demur.measurements.gradient.descent import DEFAULT, Pairs, SearchSettings, descended
from demur.measurements.gradient.vector_losses import Example, LossWeights, VectorLosses, examples_of


@dataclass(frozen=True, eq=False)
class OptimisedCone:
    """What a search found.

    Attributes:
        subspace: the orthonormal vectors of the cone with the lowest loss, each a direction with the place and the raw norm of
            the one that the search began with.
        losses: the loss over all training instructions: of the cone at the start, then after each epoch.
    """

    subspace: Subspace
    losses: tuple[float, ...]


def optimise_cone(
    checkpoint: Checkpoint,
    start: Direction,
    harmful: Instructions,
    harmless: Instructions,
    prompt: PromptLike,
    *,
    dimensions: int,
    samples: int = 8,
    epochs: int = DEFAULT.epochs,
    batch: int = DEFAULT.batch,
    tokens: int = DEFAULT.tokens,
    rate: float = DEFAULT.rate,
    weights: LossWeights = DEFAULT.weights,
    progress: Progress = silent,
) -> OptimisedCone:
    """Find several refusal directions together, so that every direction between them does the same.

    The search begins with `start` and random vectors orthogonal to it; the draws are fixed. A step costs (`dimensions` +
    `samples`) times as much as one of `demur.optimise_direction`. The weights of the checkpoint do not change.

    Args:
        checkpoint: a checkpoint that transformers runs.
        start: the first vector of the search, such as the difference of means. Its ablation and its addition at its own layer
            also write the completions that are aimed at.
        harmful: harmful training instructions.
        harmless: harmless training instructions, as many.
        prompt: the prompt format, its name, or a text with `{instruction}`.
        dimensions: the number of orthonormal vectors, 2 or more.
        samples: how many directions are drawn from the cone in each step.
        epochs: how often all instructions are gone through.
        batch: the number of instructions of each kind in one step.
        tokens: the length of the completions.
        rate: the step size of Adam.
        weights: the weights of the losses.
        progress: called with the number of instructions that were just used.

    Returns:
        The cone with the lowest loss, and the losses. It is the cone of the start if no epoch lowers the loss.

    Raises:
        InputError: for fewer than two dimensions or more than the stream has, for an engine without gradients, without
            instructions, and if the two sides differ in number.
        WorkError: if the loss is not finite.

    Example:
        >>> import demur
        >>> found = demur.optimise_cone(checkpoint, start, harmful, harmless, prompt, dimensions=3)  # doctest: +SKIP
        >>> edit = demur.ablate(found.subspace)  # doctest: +SKIP

        The lines are skipped because they load a checkpoint.
    """
    basis = first_basis(start, dimensions)
    engine, examples = examples_of(checkpoint, start, harmful, harmless, prompt, tokens)
    search, settings = VectorLosses(engine, start, weights), SearchSettings(epochs, batch, tokens, rate, weights)
    found, losses = descended_cone(search.loss, search.total, basis, examples, samples, settings, progress)
    return OptimisedCone(_together(found, start), losses)


def _together(basis: Float[Tensor, "dimension d_model"], start: Direction) -> Subspace:
    method = f"gradient of ablate, add and retain losses over a cone, vector {{}} of {len(basis)}"
    members = [
        from_raw(
            vector.double() * start.raw_norm,
            name=f"{start.name}.cone{number}",
            layer=start.layer,
            position=start.position,
            site=start.site,
            provenance=start.provenance.replaced(method=method.format(number)),
        )
        for number, vector in enumerate(basis, 1)
    ]
    return Subspace(f"{start.name}.cone", tuple(members))


def first_basis(start: Direction, dimensions: int) -> Float[Tensor, "dimension d_model"]:
    """The unit vector of a direction, and random orthonormal vectors that are orthogonal to it. The draws are fixed.

    Args:
        start: the direction.
        dimensions: how many vectors.

    Raises:
        InputError: for fewer than two dimensions or more than the stream has.
    """
    width = len(start.vector)
    if not 2 <= dimensions <= width:
        raise InputError(
            f"a cone has 2 to {width} dimensions, as the stream, not {dimensions}; for one, use demur.optimise_direction"
        )
    drawn = torch.randn(dimensions - 1, len(start.vector), generator=torch.Generator().manual_seed(0))
    return _orthonormal(torch.cat((start.vector[None], drawn)))


def descended_cone(
    loss: Callable[[Tensor, Sequence[Example]], Tensor],
    total: Callable[[Tensor, Pairs, int], float],
    basis: Float[Tensor, "dimension d_model"],
    examples: Pairs,
    samples: int,
    settings: SearchSettings,
    progress: Progress = silent,
) -> tuple[Float[Tensor, "dimension d_model"], tuple[float, ...]]:
    """Gradient descent of an orthonormal basis by the mean loss over it and over directions of its cone.

    Args:
        loss: the loss of one unit vector over some examples, with gradients.
        total: the loss of one unit vector over all examples, without gradients.
        basis: the orthonormal vectors to begin with.
        examples: the examples of each pair of instructions.
        samples: how many directions are drawn from the cone in each step.
        settings: epochs, batch and rate.
        progress: called with the number of pairs that were just used.

    Returns:
        The basis with the lowest loss, and the loss at the start and after each epoch. These losses are over the same draws.
    """
    generator = torch.Generator().manual_seed(0)
    fixed = cone_weights(len(basis), samples, generator)

    def whole(vectors: Tensor) -> float:
        return sum(total(vector, examples, settings.batch) for vector in fixed @ vectors) / len(fixed)

    def across(vectors: Tensor, chosen: Sequence[Example]) -> Tensor:
        drawn, gradient = cone_weights(len(basis), samples, generator), torch.zeros_like(basis)
        # One direction at a time, so that no more than one graph is in memory.
        for row in drawn:
            (part,) = torch.autograd.grad(loss(row @ vectors, chosen), [vectors])
            gradient += part / len(drawn)
        return _tangent(gradient, vectors.detach())

    return descended(basis, across, _orthonormal, whole, examples, settings, generator, progress)


def cone_weights(dimensions: int, samples: int, generator: torch.Generator) -> Float[Tensor, "vector dimension"]:
    """The weights of the vectors of a cone themselves, then of unit vectors that are drawn from it uniformly.

    Args:
        dimensions: the number of orthonormal vectors.
        samples: how many directions are drawn.
        generator: draws them.

    Returns:
        Rows of unit length with no negative weight.
    """
    drawn = torch.randn(samples, dimensions, generator=generator).abs()
    return torch.cat((torch.eye(dimensions), drawn / drawn.norm(dim=1, keepdim=True)))


def _tangent(gradient: Tensor, basis: Tensor) -> Tensor:
    """The part of a gradient that keeps the vectors orthonormal."""
    along = gradient @ basis.T
    return gradient - (along + along.T) / 2 @ basis


def _orthonormal(vectors: Tensor) -> Tensor:
    """The vectors one after the other, each without its part in the space of those before it, with unit length (Gram-Schmidt)."""
    columns, triangle = torch.linalg.qr(vectors.double().T)
    signs = torch.where(triangle.diagonal() < 0, -1.0, 1.0)
    found: Tensor = (columns * signs).T.to(vectors.dtype).contiguous()
    return found
