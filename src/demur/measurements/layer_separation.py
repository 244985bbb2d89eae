"""Where an arm tells harmful from harmless instructions: its own direction at every layer, and held-out instructions along it.

The directions are made of the training instructions and read on others, so a separation is not one of the instructions it was
made of. Random directions, turned the way the training means point, say what any direction would separate. Activations are taken
batch by batch.
"""

from collections.abc import Mapping, Sequence

import torch

from demur.core.progress import Progress, silent
from demur.directions.geometry import auroc
from demur.engine.capture import Means
from demur.engine.checkpoints import Checkpoint
from demur.inputs.prompts import Prompt
from demur.measurements.layerwise import DRAWS, SEED, Layerwise
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
    """Lay `held_out` instructions, `harmful` and `harmless` ones, along the difference of two means that hold every layer.

    The held-out instructions must be others than those the means are of. Raises `InputError` for a position that a prompt does
    not have, `WorkError` where an activation is not finite.
    """
    layers = range(checkpoint.n_layers)
    difference = harmful.mean - harmless.mean
    # Scaled so that the difference itself has length 1.
    own = difference / difference.square().sum(-1, keepdim=True)
    drawn = torch.randn(difference.shape[-1], DRAWS, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64)
    # A direction has a sign, which the null is given by the training means, as the difference is.
    turned = torch.sign(difference @ drawn)
    found = {}
    for side in ("harmful", "harmless"):
        along = torch.empty(len(held_out[side]), len(layers), dtype=torch.float64)
        null = torch.empty(len(held_out[side]), len(layers), DRAWS, dtype=torch.float64)
        stream = checkpoint.engine_for("activations").read(
            prompt.encode(held_out[side]), layers=layers, site=site, positions=(position,), batch_tokens=batch_tokens
        )
        for indices, activations in stream:
            for layer in layers:
                # One layer at a time, so that no more is held in double precision.
                moved = activations[:, layer, 0].double() - harmless.mean[layer]
                along[indices, layer] = moved @ own[layer]
                null[indices, layer] = (moved @ drawn) * turned[layer]
            progress(len(indices))
        found[side] = along, null
    return Layerwise(
        difference=difference.float(),
        norms=torch.stack([harmful.mean_norm, harmless.mean_norm]).float(),
        harmful=found["harmful"][0].float(),
        harmless=found["harmless"][0].float(),
        null=auroc(*(found[side][1].movedim(0, -1) for side in ("harmful", "harmless"))).T.float(),
    )
