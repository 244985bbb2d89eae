"""Attribution of the log-odds of some tokens to the latents of a sparse autoencoder, along the path from one run to another.

For latent j it is (f_other - f_clean)_j times the mean slope of the log-odds with respect to f_j on the straight path between
them (integrated gradients; Sundararajan et al. 2017, arXiv 1703.01365; for latents: Marks et al. 2024, arXiv 2403.19647). The
error of the autoencoder stays as in the clean run. It is an estimate: only runs with clamped latents say whether it holds.
"""

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from jaxtyping import Float
from torch import Tensor

from demur.core.progress import Progress, silent
from demur.directions.sae.sparse_autoencoder import SparseAutoencoder
from demur.engine.batching import in_batches, pad_left, position_ids
from demur.engine.checkpoints import Checkpoint
from demur.engine.hooks import edited, hooked
from demur.engine.readout.attribution_patching import gradient_tokens
from demur.engine.readout.direct_attribution import group_log_odds
from demur.interventions.edit_table import EditTable, tabulate
from demur.interventions.intervention import RowEdits
from demur.models.layouts import Point


def latent_attribution(
    checkpoint: Checkpoint,
    prompts: Sequence[tuple[int, ...]],
    group: Sequence[int],
    sae: SparseAutoencoder,
    where: Point,
    edits: RowEdits,
    *,
    steps: int = 10,
    progress: Progress = silent,
) -> Float[Tensor, "prompt latent"]:
    """Attribute the change of the log-odds that some edits would make by way of the latents.

    Args:
        checkpoint: the checkpoint.
        prompts: token ids of the prompts.
        group: the tokens whose log-odds are meant.
        sae: the autoencoder, on the model's device.
        where: the point of the stream at which it reads.
        edits: the edits of the other run.
        steps: points on the path, at the middle of as many equal parts.
        progress: called after each batch with the number of its prompts.

    Returns:
        The attributions in nats, summed over all token positions but the first, float64 on the CPU.
    """
    table = tabulate([edits], checkpoint.layout, checkpoint.n_layers, checkpoint.d_model, checkpoint.device)
    found = torch.empty(len(prompts), sae.latents, dtype=torch.float64)

    def work(indices: list[int]) -> Tensor:
        ids, mask = pad_left([prompts[index] for index in indices], checkpoint.pad_id, checkpoint.device)
        return _batch(_Prompts(checkpoint, ids, mask, where), group, sae, table, steps)

    lengths, most = list(map(len, prompts)), gradient_tokens(checkpoint)
    for indices, values in in_batches(lengths, work, model=checkpoint.model, batch_tokens=most):
        found[indices] = values
        progress(len(indices))
    return found


class _Prompts:
    """A batch of prompts that is run several times."""

    def __init__(self, checkpoint: Checkpoint, ids: Tensor, mask: Tensor, where: Point) -> None:
        self.checkpoint, self.ids, self.mask, self.where = checkpoint, ids, mask, where

    def logits(self) -> Tensor:
        """The logits after the last token."""
        output = self.checkpoint.model(
            input_ids=self.ids,
            attention_mask=self.mask,
            position_ids=position_ids(self.mask),
            use_cache=False,
            logits_to_keep=1,
        )
        found: Tensor = output.logits[:, -1]
        return found

    def stream(self, table: EditTable | None = None) -> Tensor:
        """The stream at the point, at all token positions, with the edits of a table."""
        kept: list[Tensor] = []

        def keep(stream: Tensor, onto: Tensor) -> None:  # noqa: ARG001
            kept.append(stream.detach().clone())

        model, layout = self.checkpoint.model, self.checkpoint.layout
        acting = nullcontext() if table is None else edited(model, layout, table)
        # The edits come first, so that the stream is read after them.
        with torch.no_grad(), acting, hooked(model, layout, {self.where: keep}):
            self.logits()
        return kept[0]


def _batch(prompts: _Prompts, group: Sequence[int], sae: SparseAutoencoder, table: EditTable, steps: int) -> Tensor:
    # The first token has activations of its own kind, and no autoencoder was trained to reconstruct them.
    left_out = (prompts.mask.cumsum(-1) <= 1)[..., None]
    other, clean = (sae.encode(prompts.stream(one)) for one in (table, None))
    change = (other - clean).masked_fill(left_out.to(clean.device), 0.0)
    written, model, layout = change @ sae.decoder, prompts.checkpoint.model, prompts.checkpoint.layout
    slope = torch.zeros_like(written)
    for step in range(steps):
        moved = ((step + 0.5) / steps * written).requires_grad_()

        def add(stream: Tensor, onto: Tensor, moved: Tensor = moved) -> Tensor:  # noqa: ARG001
            return (onto + moved.to(onto.device)).to(onto.dtype)

        with torch.enable_grad(), hooked(model, layout, {prompts.where: add}):
            odds = group_log_odds(prompts.logits().float(), group)
            slope += torch.autograd.grad(odds.sum(), moved)[0]
    products = change * (slope / steps @ sae.decoder.T)
    return products.masked_fill(left_out.to(products.device), 0.0).double().sum(1).cpu()
