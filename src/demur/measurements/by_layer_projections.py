"""The work of the measurement `by-layer`: projects held-out instructions on the arm's direction at each layer.

The directions are made from training instructions and measured on others, so a separation does not come from fitting. Random
directions show how well a direction separates by chance. The sign of each is set by the training means. Activations are read
batch by batch.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from demur.core.progress import Progress, silent
from demur.directions.geometry import auroc
from demur.engine.capture import Means
from demur.engine.checkpoints import Checkpoint
from demur.inputs.prompts import Prompt
from demur.measurements.by_layer_record import DRAWS, SEED, Layerwise
from demur.models.layouts import Site


def measure(
    checkpoint: Checkpoint,
    harmful: Means,
    harmless: Means,
    held_out: Mapping[str, Sequence[str]],
    prompt: Prompt,
    *,
    site: Site = "resid_pre",
    position: int = -1,
    batch_tokens: int | None = None,
    progress: Progress = silent,
) -> Layerwise:
    """Project held-out instructions on the difference of two means at every layer.

    Args:
        checkpoint: the loaded checkpoint.
        harmful: means of the harmful training instructions at every layer.
        harmless: means of the harmless training instructions at every layer.
        held_out: `harmful` and `harmless` instructions that the means do not include.
        prompt: the prompt format.
        site: the site that is read.
        position: the prompt position that is read, counted from the end.
        batch_tokens: the most tokens in a batch; found from the free memory unless given.
        progress: called with the number of instructions just finished.

    Returns:
        The arrays of the arm, for every layer.

    Raises:
        InputError: if a prompt does not have the position.
        WorkError: if an activation is not finite.
    """
    difference = harmful.mean - harmless.mean
    drawn = torch.randn(difference.shape[-1], DRAWS, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64)
    found = {}
    for side in ("harmful", "harmless"):
        stream = checkpoint.engine_for("activations").read(
            prompt.encode(held_out[side]),
            layers=range(checkpoint.n_layers),
            site=site,
            positions=(position,),
            batch_tokens=batch_tokens,
        )
        found[side] = _laid_along(stream, len(held_out[side]), harmless.mean, difference, drawn, progress)
    null = auroc(*(found[side][1].movedim(0, -1) for side in ("harmful", "harmless"))).T
    return Layerwise(
        difference=difference.float().numpy(),
        norms=torch.stack([harmful.mean_norm, harmless.mean_norm]).float().numpy(),
        harmful=found["harmful"][0].float().numpy(),
        harmless=found["harmless"][0].float().numpy(),
        null=null.float().numpy(),
    )


def _laid_along(
    stream: Iterator[tuple[list[int], Tensor]],
    n: int,
    origin: Float[Tensor, "layer d_model"],
    difference: Float[Tensor, "layer d_model"],
    drawn: Float[Tensor, "d_model draw"],
    progress: Progress,
) -> tuple[Float[Tensor, "instruction layer"], Float[Tensor, "instruction layer draw"]]:
    """The projections of `n` instructions on the difference, and on each random direction."""
    # Scaled so that the difference itself is projected to 1.
    own = difference / difference.square().sum(-1, keepdim=True)
    # The sign of a random direction is set by the training means, like that of the difference.
    signs = torch.sign(difference @ drawn)
    along = torch.empty(n, len(difference), dtype=torch.float64)
    null = torch.empty(n, len(difference), drawn.shape[-1], dtype=torch.float64)
    for indices, activations in stream:
        for layer in range(len(difference)):
            # One layer at a time, so that only one layer takes memory in double precision.
            moved = activations[:, layer, 0].double() - origin[layer]
            along[indices, layer] = moved @ own[layer]
            null[indices, layer] = (moved @ drawn) * signs[layer]
        progress(len(indices))
    return along, null
