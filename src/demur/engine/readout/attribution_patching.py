"""Attribution patching: for all heads and MLPs at once, about how much an exact patch of each would change the log-odds.

The change that a patch makes to a component's output, times the gradient of the log-odds with respect to that output (Nanda 2023;
Syed et al. 2023, arXiv 2310.10348). It is a first-order estimate: only exact patches say whether it holds.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from demur.core.progress import Progress, silent
from demur.engine.batching import in_batches, pad_left, position_ids
from demur.engine.branch_recording import OutputChange, changed_outputs
from demur.engine.checkpoints import Checkpoint
from demur.engine.lockstep.matched_pair import MatchedPair
from demur.engine.lockstep.pair_tree import one_thread
from demur.engine.readout.attention_heads import head_projections
from demur.engine.readout.direct_attribution import group_log_odds
from demur.models.layouts import branch
from demur.models.memory_budget import fitting

GRADIENT_TOKENS = 256
"""The most tokens in a batch with gradients, which keep every activation in memory."""
ACTIVATIONS = 40
"""About how many times `d_model` numbers are kept for each token and block: 37 with SmolLM2, whose MLPs are 2.7 times as wide."""


def gradient_tokens(checkpoint: Checkpoint) -> int:
    """The most tokens in a batch with gradients."""
    each = ACTIVATIONS * checkpoint.d_model * checkpoint.n_layers * checkpoint.dtype.itemsize
    return fitting(each, str(checkpoint.device), GRADIENT_TOKENS)


def attribution_patching(
    pair: MatchedPair, prompts: Sequence[tuple[int, ...]], group: Sequence[int], *, progress: Progress = silent
) -> Float[Tensor, "prompt component"]:
    """Estimate the change of the log-odds by a patch of each component at all prompt positions.

    Args:
        pair: the checkpoints. Components of the source are put into the target.
        prompts: token ids of the prompts, the same for both.
        group: the tokens whose log-odds are meant.
        progress: called after each batch with the number of its prompts.

    Returns:
        The estimates in nats, float64 on the CPU, in the order of `components_of`.

    Raises:
        InputError: if the heads of an attention cannot be told apart.
    """
    found: dict[int, Tensor] = {}

    def work(indices: list[int]) -> Tensor:
        with one_thread(pair):
            return _batch(pair, [prompts[index] for index in indices], group)

    lengths = list(map(len, prompts))
    for indices, estimates in in_batches(lengths, work, model=pair.target.model, batch_tokens=gradient_tokens(pair.target)):
        found |= zip(indices, estimates, strict=True)
        progress(len(indices))
    return torch.stack([found[index] for index in range(len(prompts))])


def _batch(pair: MatchedPair, prompts: Sequence[tuple[int, ...]], group: Sequence[int]) -> Tensor:
    ids, mask = pad_left(prompts, pair.target.pad_id, pair.target.device)
    theirs: dict[nn.Module, tuple[Tensor, Tensor]] = {}
    mine: dict[nn.Module, tuple[Tensor, Tensor]] = {}
    # Zeros that are added to the outputs, so that there is a gradient with respect to them whatever needs one else.
    zeros: dict[nn.Module, Tensor] = {}

    def keeping(module: nn.Module, into: dict[nn.Module, tuple[Tensor, Tensor]], *, add: bool) -> OutputChange:
        def keep(given: Tensor, output: Tensor) -> Tensor | None:
            into[module] = (given.detach().clone(), output.detach().clone())
            if not add:
                return None
            zeros[module] = torch.zeros_like(output, requires_grad=True)
            return output + zeros[module]

        return keep

    modules = [_modules(one) for one in (pair.source, pair.target)]
    with torch.no_grad(), changed_outputs({one: keeping(one, theirs, add=False) for one in modules[0]}):
        _logits(pair, pair.source, ids, mask)
    with torch.enable_grad(), changed_outputs({one: keeping(one, mine, add=True) for one in modules[1]}):
        odds = group_log_odds(_logits(pair, pair.target, ids, mask).float(), group)
        slopes = torch.autograd.grad(odds.sum(), [zeros[one] for one in modules[1]])
    estimates: list[Tensor] = []
    real = mask.bool()
    projections = [head_projections(one) for one in (pair.source, pair.target)]
    for place, (source, target) in enumerate(zip(*modules, strict=True)):
        slope = _by_row(slopes[place], len(prompts))
        layer, is_mlp = place // 2, place % 2
        if is_mlp:
            change = _by_row(theirs[source][1], len(prompts)).to(slope.device) - _by_row(mine[target][1], len(prompts))
            estimates.append(_summed(change * slope, real))
            continue
        own = [
            _by_row(kept[module][0], len(prompts)).to(slope.device) * (slope @ side[layer].weight.to(slope.device, slope.dtype))
            for kept, module, side in ((theirs, source, projections[0]), (mine, target, projections[1]))
        ]
        for head in range(projections[1][layer].n_heads):
            at = projections[1][layer].of_head(head)
            estimates.append(_summed(own[0][..., at] - own[1][..., at], real))
    return torch.stack(estimates, 1)


def _modules(checkpoint: Checkpoint) -> list[nn.Module]:
    """The map of the heads and the MLP of each layer in turn."""
    blocks = checkpoint.layout.find_blocks(checkpoint.model)
    pairs = zip(head_projections(checkpoint), blocks, strict=True)
    return [one for heads, block in pairs for one in (heads.module, branch(block, checkpoint.layout.mlp))]


def _logits(pair: MatchedPair, checkpoint: Checkpoint, ids: Tensor, mask: Tensor) -> Tensor:
    device = checkpoint.device
    output = checkpoint.model(
        input_ids=ids.to(device),
        attention_mask=mask.to(device),
        position_ids=position_ids(mask).to(device),
        use_cache=False,
        logits_to_keep=1,
    )
    found: Tensor = output.logits[:, -1, : pair.vocabulary]
    return found


def _by_row(given: Tensor, rows: int) -> Tensor:
    """A tensor with rows and tokens apart; some modules have both in one dimension."""
    return given.reshape(rows, -1, given.shape[-1])


def _summed(products: Tensor, real: Tensor) -> Tensor:
    """The sum over coordinates and over token positions that are no padding, float64 on the CPU."""
    padding = ~real.to(products.device)[..., None]
    return products.masked_fill(padding, 0.0).double().sum((1, 2)).cpu()
