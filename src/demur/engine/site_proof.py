"""Proves that every site of a layout is, in this model, the point of the stream that the layout says.

The proof takes two forward passes over a few tokens. In the first, the outputs of attention and MLP must sum to what each block
adds, up to rounding. In the second, each row but one is edited at one site of one layer, and its logits must differ from those
of the unedited row. An edit of the attention output must change what the MLP adds in sequential blocks, and must not change it in
parallel blocks. A layout that fails any of these checks raises `WorkError`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from demur.core.errors import WorkError
from demur.directions.direction import from_raw
from demur.engine.branch_recording import Branches, recorded_branches
from demur.engine.hooks import edited, split_rows
from demur.engine.row_sharing import share_rows, tabulate_shared
from demur.interventions.intervention import Intervention, add
from demur.models.device_placement import input_device
from demur.models.layouts import SITES, Layout, Site, d_model_of

TOKENS = 4
ROUNDINGS = 4.0
"""The largest allowed error of a sum, in roundings of its summands. Two additions and a multiplication make at most 1.5."""
READS = 0.05
"""If an MLP reads an edit that is as long as the stream, its output changes at some token by a much larger part than this. If it
does not read the edit, its output changes only by rounding."""


@dataclass(frozen=True)
class Proof:
    """The numbers of a proof.

    Attributes:
        edits: how many edits were made, one for each layer and site.
        worst_sum: the largest error of a sum, in roundings of its summands.
        least_change: the smallest change of the logits by an edit, relative to the largest logit.
    """

    edits: int
    worst_sum: float
    least_change: float


@torch.inference_mode()
def prove_sites(model: PreTrainedModel, layout: Layout) -> Proof:
    """Prove that a layout describes a model.

    Args:
        model: the model.
        layout: the layout of its family.

    Raises:
        WorkError: if the layout does not describe the model. The message names the layer.
        InputError: if the model has no module at a path of the layout.
    """
    config, blocks = model.config.get_text_config(), layout.find_blocks(model)
    expected = int(config.num_hidden_layers) - len(layout.left_out)
    if len(blocks) != expected:
        raise WorkError(
            f"the layout of {layout.family!r} finds {len(blocks)} blocks at {layout.blocks!r}, but this model's config says "
            f"that there are {expected}; the layout does not describe it"
        )
    ids = torch.linspace(1, int(config.vocab_size) - 1, TOKENS, device=input_device(model)).long()[None]
    with recorded_branches(model, layout) as plain:
        model(input_ids=ids, use_cache=False)
    worst = 0.0
    for layer in range(expected):
        if layer not in plain:
            raise WorkError(
                f"block {layer} at {layout.blocks!r} of this {layout.family!r} model did not run; the layout does not describe it"
            )
        worst = max(worst, _check_sum(layer, layout, plain[layer]))
    # The median over tokens, because the first token may have a very large norm. An edit of that length may overflow in float16.
    lengths = [max(1e-6, float(one.after.norm(dim=-1).median())) for one in plain.values()]
    return Proof(expected * len(layout.sites), worst, _check_edits(model, layout, ids, lengths))


def _check_sum(layer: int, layout: Layout, one: Branches) -> float:
    """The largest error of a sum, in roundings of its summands."""
    gap = (one.before + one.attention + one.mlp - one.after).abs()
    parts = (one.before, one.attention, one.mlp, one.after)
    rounding = one.rounding * torch.stack(parts).abs().sum(0)
    if not all(bool(torch.isfinite(part).all()) for part in parts):
        raise WorkError(
            f"the stream of layer {layer} of this {layout.family!r} model is not finite; load the weights with dtype "
            "float32; if it is still not finite, the weights are damaged"
        )
    if bool((gap > ROUNDINGS * rounding).any()):
        raise WorkError(
            f"in layer {layer} of this {layout.family!r} model, attention at {layout.attention!r} and MLP at {layout.mlp!r} do "
            f"not sum to what the block adds (off by {float(gap.max()):.1e}, the stream is {float(one.after.abs().max()):.1e}); "
            "the layout does not describe it"
        )
    return float((gap / rounding.clamp(min=torch.finfo(rounding.dtype).tiny)).max())


def _check_edits(model: PreTrainedModel, layout: Layout, ids: Tensor, lengths: Sequence[float]) -> float:
    """The smallest change of the logits by an edit at a declared site, relative to the largest logit."""
    width, n_layers = d_model_of(model), len(lengths)
    probe = torch.randn(width, generator=torch.Generator().manual_seed(0))
    edits: list[tuple[int, Site, Intervention]] = [
        (layer, site, add(from_raw(probe, name="probe", layer=layer, site=site), length))
        for layer, length in enumerate(lengths)
        for site in SITES
    ]
    # Parallel blocks are edited at resid_mid too, to see whether their MLP reads what attention adds.
    sequential = replace(layout, parallel=False)
    made = [None, *(edit for _, _, edit in edits)]
    sharing = share_rows([0] * len(made), made, sequential, n_layers)
    table = tabulate_shared(sharing, made, sequential, n_layers, width, ids.device)
    places = {layer: sharing.places_at(layer) for layer in range(n_layers)}
    rows = {layer: (places[layer][0], places[layer][1 + i]) for i, (layer, site, _) in enumerate(edits) if site == "resid_mid"}
    with (
        split_rows(model, sequential, sharing),
        edited(model, sequential, table),
        recorded_branches(model, layout, rows) as seen,
    ):
        called = ids.expand(len(sharing.running[0]), -1)
        output = model(input_ids=called, use_cache=False, logits_to_keep=1).logits[:, -1].float()
    # The batch grows from block to block, so too few logits show that the model uses the output of an earlier block.
    if len(output) != len(sharing.running[-1]):
        raise WorkError(
            f"the last block of this {layout.family!r} model gives {len(sharing.running[-1])} rows, but {len(output)} have "
            "logits, so an edit in it does not change the logits; the layout names a place that the model does not read"
        )
    logits = output[list(sharing.places[-1])]
    for layer, one in seen.items():
        _check_sum(layer, layout, one)
        _check_order(layer, layout, one.mlp)
    if not bool(torch.isfinite(logits).all()):
        raise WorkError(
            f"the logits of this {layout.family!r} model are not finite under an edit as long as its stream; load the weights "
            "with dtype float32"
        )
    changes = (logits[1:] - logits[0]).abs().amax(-1).tolist()
    declared = [(layer, site, change) for (layer, site, _), change in zip(edits, changes, strict=True) if site in layout.sites]
    for layer, site, change in declared:
        if change == 0:
            raise WorkError(
                f"an edit at {site} of layer {layer} does not change the logits of this {layout.family!r} model; "
                "the layout names a place that the model does not read"
            )
    return float(min(change for _, _, change in declared) / logits[0].abs().max())


def _check_order(layer: int, layout: Layout, mlp: Tensor) -> None:
    """`mlp` is what the MLP adds to two rows: an unedited row, and a row whose attention output is edited."""
    size, change = mlp[0].abs().amax(-1), (mlp[1] - mlp[0]).abs().amax(-1)
    reads = bool((change > READS * size).any())
    if bool(size.any()) and reads == layout.parallel:
        found, declared = ("", "parallel") if reads else (" not", "sequential")
        raise WorkError(
            f"in layer {layer} of this {layout.family!r} model the MLP at {layout.mlp!r} does{found} read what attention at "
            f"{layout.attention!r} adds, but the layout says its branches are {declared}; the layout does not describe it"
        )
