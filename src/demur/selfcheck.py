"""Sites prove themselves: is every declared site of a layout causally what it claims to be, in this very model?

One forward pass over a few tokens, one row a site: a row edited at a site must end in other logits than an unedited one. And what
attention and MLP are declared to add must sum to what the block adds. A layout that fails either raises `WorkError`.
"""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from demur.directions import from_raw
from demur.errors import WorkError
from demur.interventions import Intervention, add, tabulate
from demur.layouts import Layout, d_model_of
from demur.residual import edited, recorded_branches

TOKENS = 4


@torch.inference_mode()
def prove_sites(model: PreTrainedModel, layout: Layout) -> None:
    """Raises `WorkError` naming layer and site where an edit does not reach the logits or a sum does not come out."""
    blocks = layout.find_blocks(model)
    vocabulary = int(model.config.get_text_config().vocab_size)
    device = next(model.parameters()).device
    ids = torch.linspace(1, vocabulary - 1, TOKENS, device=device).long()[None]
    gaps, scale = _sums(model, layout, ids)
    tolerance = 64 * torch.finfo(next(model.parameters()).dtype).eps
    for layer, gap in enumerate(gaps):
        if gap > tolerance * scale[layer]:
            raise WorkError(
                f"in layer {layer} of this {layout.family!r} model, attention at {layout.attention!r} and MLP at "
                f"{layout.mlp!r} do not sum to what the block adds (off by {gap / scale[layer]:.1e} of the stream); "
                "the layout does not describe it"
            )
    probe = torch.randn(d_model_of(model), generator=torch.Generator().manual_seed(0))
    size = max(1.0, float(scale.max()))
    edits: list[tuple[int, str, Intervention]] = [
        (layer, site, add(from_raw(probe, name="probe", layer=layer, site=site), size))
        for layer in range(len(blocks))
        for site in layout.sites
    ]
    table = tabulate([None, *(edit for _, _, edit in edits)], layout, len(blocks), d_model_of(model), device)
    with edited(model, layout, table):
        logits = model(input_ids=ids.expand(len(edits) + 1, -1), use_cache=False, logits_to_keep=1).logits[:, -1].float()
    for (layer, site, _), row in zip(edits, logits[1:], strict=True):
        if not float((row - logits[0]).abs().max()) > 0:
            raise WorkError(
                f"an edit at {site} of layer {layer} does not change the logits of this {layout.family!r} model; "
                "the layout names a place that the model does not read"
            )


def _sums(model: PreTrainedModel, layout: Layout, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Per layer: how far attention + MLP is from output - input at most, and the largest entry of the output."""
    with recorded_branches(model, layout) as seen:
        model(input_ids=ids, use_cache=False)
    gaps = [(one.before + one.attention + one.mlp - one.after).abs().max() for one in seen]
    return torch.stack(gaps), torch.stack([one.after.abs().max() for one in seen])
