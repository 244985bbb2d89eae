"""Activations of many prompts at some layers and positions, batch after batch, so memory does not grow with their number.

The prefix that all prompts share runs once, the forward pass stops after the last layer that is wanted, and no logits are
computed.
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from demur.core.errors import InputError, NotFinite
from demur.engine.batching import in_batches
from demur.engine.engine_protocol import Row
from demur.engine.prefill import ReadSpec, prefill_chunk, run_shared_prefix
from demur.models.device_placement import weights_dtype
from demur.models.layouts import Layout, Point, Site, point


def stream_activations(
    model: PreTrainedModel,
    layout: Layout,
    prompts: Sequence[Sequence[int]],
    *,
    layers: Sequence[int],
    site: Site = "resid_pre",
    positions: Sequence[int] = (-1,),
    pad_id: int = 0,
    batch_tokens: int | None = None,
) -> Iterator[tuple[list[int], Float[Tensor, "row layer position d_model"]]]:
    """Read the stream of many prompts at one site, batch after batch, longest prompts first.

    Args:
        model: the model.
        layout: the layout of its family.
        prompts: token ids.
        layers: the layers to read.
        site: where in each layer.
        positions: token positions, counted from the prompt's end: -1 is its last token.
        pad_id: the token used as padding.
        batch_tokens: the most tokens in a batch.

    Returns:
        For each batch, the indices of its prompts and their activations, in float32 on the CPU.

    Raises:
        InputError: if there are no layers, for a layer or site that the model does not have, and for a position that is not in
            every prompt.
        NotFinite: if an activation is not finite, with its layer and the index of its prompt.
    """
    check_layers(layers, site, layout, len(layout.find_blocks(model)))
    yield from point_activations(
        model,
        layout,
        prompts,
        points=[point(layer, site) for layer in layers],
        layers=layers,
        positions=positions,
        pad_id=pad_id,
        batch_tokens=batch_tokens,
    )


@torch.inference_mode()
def point_activations(
    model: PreTrainedModel,
    layout: Layout,
    prompts: Sequence[Sequence[int]],
    *,
    points: Sequence[Point],
    layers: Sequence[int],
    positions: Sequence[int] = (-1,),
    pad_id: int = 0,
    batch_tokens: int | None = None,
) -> Iterator[tuple[list[int], Float[Tensor, "row point position d_model"]]]:
    """Read the stream of many prompts at any points in one pass, batch after batch, longest prompts first.

    Args:
        model: the model.
        layout: the layout of its family.
        prompts: token ids.
        points: the points to read; the model must have them.
        layers: the layer that an error names for each point.
        positions: token positions, counted from the prompt's end: -1 is its last token.
        pad_id: the token used as padding.
        batch_tokens: the most tokens in a batch.

    Returns:
        For each batch, the indices of its prompts and their activations, in float32 on the CPU.

    Raises:
        InputError: for a position that is not in every prompt.
        NotFinite: if an activation is not finite, with its layer and the index of its prompt.
    """
    if not prompts:
        return
    check_positions(positions, prompts)
    rows = [Row(tuple(prompt)) for prompt in prompts]
    spec = ReadSpec(tuple(points), tuple(positions))
    prefix = run_shared_prefix(model, layout, rows, pad_id, spec)

    def work(indices: list[int]) -> Tensor:
        activations = prefill_chunk(model, layout, rows, indices, pad_id, prefix, spec, keep=False).states
        if not torch.isfinite(activations).all():
            row, layer = (int(i) for i in torch.nonzero(~torch.isfinite(activations).all(-1))[0][:2])
            raise NotFinite("the activations", indices[row], weights_dtype(model), layers[layer])
        return activations

    yield from in_batches([len(row.prompt) for row in rows], work, model=model, batch_tokens=batch_tokens, even=True)


def check_layers(layers: Sequence[int], site: Site, layout: Layout, n_layers: int) -> None:
    """Raises `InputError` if there are no layers, and for a layer or site that the model does not have."""
    if not layers:
        raise InputError("reading activations needs at least one layer; name one")
    layout.check_sites((site,))
    for layer in layers:
        if not 0 <= layer < n_layers:
            raise InputError(f"layer {layer} is out of range: this model has layers 0 to {n_layers - 1}")


def check_positions(positions: Sequence[int], prompts: Sequence[Sequence[int]]) -> None:
    """Raises `InputError` for a position that is not in every prompt. There must be at least one prompt."""
    shortest = min(map(len, prompts))
    for position in positions:
        if not -shortest <= position < 0:
            raise InputError(
                f"position {position} is not in every prompt: positions count back from the prompt's end, -1 to -{shortest}"
            )
