"""Direct attribution: how much each head and MLP adds to the difference between two groups of logits, with an exact sum.

The final norm's scale is frozen at its value, so that the logits are a sum over components (TransformerLens' convention). The
attributed number is the mean logit of one group of tokens minus that of the other, each weighted by the probabilities within its
group. In this direction the log-odds of the group grow fastest. The number differs from them by the entropies of both groups.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from demur.core.errors import WorkError
from demur.core.progress import Progress, silent
from demur.engine.batching import in_batches, pad_left, position_ids
from demur.engine.branch_recording import OutputChange, changed_outputs
from demur.engine.checkpoints import Checkpoint
from demur.engine.engine_protocol import LOSS_TOKENS
from demur.engine.hooks import observed
from demur.engine.lockstep.component_patch import Component
from demur.engine.model_state import state_of
from demur.engine.readout.attention_heads import HeadProjection, head_projections
from demur.engine.readout.frozen_norm import FrozenNorm, final_norm, frozen_norm
from demur.models.layouts import branch, point

SUM = 1e-3
"""The sum over components may differ from the attributed number by this part of the sum of their sizes, which is rounding."""
VOCABULARY_PART = 8192
"""This many rows of the unembedding are used at once."""


@dataclass(frozen=True, eq=False)
class DirectAttribution:
    """What each component adds, in nats of the difference of logits.

    Attributes:
        components: each head and MLP, layer by layer.
        parts: (prompt, component).
        embedding: what the embedding adds, (prompt,).
        rest: what biases add, (prompt,).
        total: the attributed number, which is the sum of all these, (prompt,).
        log_odds: the log-odds of the first group, (prompt,).
        worst: the largest gap between sum and number, as a share of the sum of sizes.
    """

    components: tuple[Component, ...]
    parts: Float[Tensor, "prompt component"]
    embedding: Float[Tensor, " prompt"]
    rest: Float[Tensor, " prompt"]
    total: Float[Tensor, " prompt"]
    log_odds: Float[Tensor, " prompt"]
    worst: float


def components_of(checkpoint: Checkpoint) -> tuple[Component, ...]:
    """Each head and MLP of a checkpoint, layer by layer."""
    return tuple(
        one
        for layer, projection in enumerate(head_projections(checkpoint))
        for one in (*(Component(layer, "head", head) for head in range(projection.n_heads)), Component(layer, "mlp"))
    )


def group_log_odds(logits: Float[Tensor, "... vocab"], group: Sequence[int]) -> Float[Tensor, "..."]:
    """The log-odds that the next token is of a group.

    Args:
        logits: the logits.
        group: the tokens of the group; there must be others.
    """
    inside = torch.zeros(logits.shape[-1], dtype=torch.bool, device=logits.device)
    inside[list(group)] = True
    own, other = logits.masked_fill(~inside, -torch.inf), logits.masked_fill(inside, -torch.inf)
    return own.logsumexp(-1) - other.logsumexp(-1)


def direct_attribution(
    checkpoint: Checkpoint,
    prompts: Sequence[tuple[int, ...]],
    group: Sequence[int],
    vocabulary: int,
    *,
    progress: Progress = silent,
) -> DirectAttribution:
    """Attribute a difference of logits after each prompt to the components.

    Args:
        checkpoint: the checkpoint, run by the engine `transformers`. Logits are those of the unembedding; a family that scales or
            caps them does this afterwards.
        prompts: token ids.
        group: the tokens of the first group; all others are the second one.
        vocabulary: how many token ids count, from 0.
        progress: called after each batch with the number of its prompts.

    Returns:
        The attribution, float64 on the CPU.

    Raises:
        InputError: if the heads of an attention cannot be told apart.
        WorkError: if the components do not sum up to the attributed number.
    """
    made = _Attributing(checkpoint, tuple(group), vocabulary)
    components, n = components_of(checkpoint), len(prompts)
    parts = torch.empty(n, len(components), dtype=torch.float64)
    others = torch.empty(n, 4, dtype=torch.float64)

    def work(indices: list[int]) -> tuple[Tensor, Tensor]:
        with state_of(checkpoint.model).lock:
            return made.batch([prompts[index] for index in indices])

    found = in_batches(list(map(len, prompts)), work, model=checkpoint.model, batch_tokens=LOSS_TOKENS)
    for indices, (own, rest) in found:
        parts[indices], others[indices] = own, rest
        progress(len(indices))
    embedding, rest, total, log_odds = others.unbind(1)
    sizes = parts.abs().sum(1) + embedding.abs() + rest.abs()
    worst = float(((parts.sum(1) + embedding + rest - total).abs() / sizes).max())
    if not worst <= SUM:
        raise WorkError(
            f"the components of {checkpoint.name!r} sum up to another difference of logits than the model gives (off by "
            f"{100 * worst:.2g} % of their sizes), so none of them can be trusted; report this with the model's name"
        )
    return DirectAttribution(components, parts, embedding, rest, total, log_odds, worst)


@dataclass(frozen=True, eq=False)
class _Attributing:
    checkpoint: Checkpoint
    group: tuple[int, ...]
    vocabulary: int

    @torch.inference_mode()
    def batch(self, prompts: Sequence[tuple[int, ...]]) -> tuple[Tensor, Tensor]:
        """What each component adds, (row, component); and embedding, biases, number and log-odds, (row, 4)."""
        one, model = self.checkpoint, self.checkpoint.model
        blocks, projections = one.layout.find_blocks(model), head_projections(one)
        ids, mask = pad_left(prompts, one.pad_id, one.device)
        kept: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}
        head = model.get_output_embeddings()
        watched = {projection.module: ("heads", layer) for layer, projection in enumerate(projections)}
        watched |= {branch(block, one.layout.mlp): ("mlp", layer) for layer, block in enumerate(blocks)}
        # The attention itself, if a norm follows the map of its heads.
        added = {branch(block, one.layout.attention): ("attention", layer) for layer, block in enumerate(blocks)}
        watched |= {module: key for module, key in added.items() if module not in watched}
        watched[head] = ("logits", 0)
        ends = (point(0, "resid_pre"), point(len(blocks) - 1, "resid_post"))
        with observed(model, one.layout, ends, (-1,)) as stream, changed_outputs(_keepers(watched, kept, len(prompts))):
            model(input_ids=ids, attention_mask=mask, position_ids=position_ids(mask), use_cache=False, logits_to_keep=1)
        final, logits = kept["logits", 0]
        begin, end = (stream[where][:, 0].double() for where in ends)
        norm = final_norm(model, blocks, end, final, one.name)
        along, shares, bias = self._along(head, logits)
        read = norm.transposed(along)
        parts = []
        for layer, projection in enumerate(projections):
            parts += [(part * read).sum(-1) for part in self._heads(layer, projection, blocks[layer], kept)]
            parts.append((kept["mlp", layer][1] * one.layout.multiplier * read).sum(-1))
        # Everything that is not of a head or an MLP is a bias: it is what is left of the attentions, and the norm's own.
        embedding = (begin * read).sum(-1)
        attention = torch.stack([(self._attention(layer, kept) * read).sum(-1) for layer in range(len(blocks))]).sum(0)
        heads = torch.stack([part for place, part in enumerate(parts) if (place + 1) % (projections[0].n_heads + 1)]).sum(0)
        rest = attention - heads + (norm.bias * along).sum(-1) + bias
        total = (shares * logits[:, : self.vocabulary]).sum(-1)
        odds = group_log_odds(logits[:, : self.vocabulary], self.group)
        return torch.stack(parts, 1), torch.stack([embedding, rest, total, odds], 1)

    def _attention(self, layer: int, kept: Mapping[tuple[str, int], tuple[Tensor, Tensor]]) -> Tensor:
        """What the attention of a layer adds to the stream."""
        return kept.get(("attention", layer), kept["heads", layer])[1] * self.checkpoint.layout.multiplier

    def _heads(
        self, layer: int, projection: HeadProjection, block: nn.Module, kept: Mapping[tuple[str, int], tuple[Tensor, Tensor]]
    ) -> list[Tensor]:
        """What each head of a layer adds to the stream, with the check that nothing but a bias is missing."""
        given, output = kept["heads", layer]
        # In float64, so that the sum over heads is exact.
        weight = projection.weight.double().cpu()
        written = [given[:, own] @ weight[:, own].T for own in map(projection.of_head, range(projection.n_heads))]
        bias = getattr(projection.module, "bias", None)
        left = output - sum(written) - (0 if bias is None else bias.double().cpu())
        module, added = branch(block, self.checkpoint.layout.attention), self._attention(layer, kept)
        norm: FrozenNorm | None = None
        if "Norm" in type(module).__name__:
            norm = frozen_norm(module, *kept["attention", layer])
            same = norm is not None and torch.equal(kept["attention", layer][0], output)
        else:
            same = torch.equal(added, output * self.checkpoint.layout.multiplier)
        mixes = left.abs().max() <= SUM * output.abs().max()
        if not mixes or not same:
            raise WorkError(
                f"the heads in layer {layer} of {self.checkpoint.name!r} do not sum up to what the attention adds, so it cannot "
                "be attributed to heads; report this with the model's name"
            )
        multiplier = self.checkpoint.layout.multiplier
        return [(one if norm is None else norm.linear(one)) * multiplier for one in written]

    def _along(self, head: nn.Module, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The direction that is read in the final norm's output, the weight of each logit, and what their bias adds."""
        inside = torch.zeros(self.vocabulary, dtype=torch.bool)
        inside[list(self.group)] = True
        own = logits[:, : self.vocabulary]
        shares = own.masked_fill(~inside, -torch.inf).softmax(-1) - own.masked_fill(inside, -torch.inf).softmax(-1)
        weight = head.get_parameter("weight")
        along = torch.zeros(len(logits), weight.shape[1], dtype=torch.float64)
        for start in range(0, self.vocabulary, VOCABULARY_PART):
            end = min(start + VOCABULARY_PART, self.vocabulary)
            along += shares[:, start:end] @ weight[start:end].double().cpu()
        bias = getattr(head, "bias", None)
        extra = torch.zeros(len(logits), dtype=torch.float64)
        if bias is not None:
            extra = (shares * bias[: self.vocabulary].double().cpu()).sum(-1)
        return along, shares, extra


def _keepers(
    watched: Mapping[nn.Module, tuple[str, int]], kept: dict[tuple[str, int], tuple[Tensor, Tensor]], rows: int
) -> dict[nn.Module, OutputChange]:
    """Functions that keep inputs and outputs at the last token, in float64 on the CPU."""

    def keeper(key: tuple[str, int]) -> OutputChange:
        def keep(given: Tensor, output: Tensor) -> None:
            # Some modules get rows and tokens in one dimension.
            ends = [one.detach().reshape(rows, -1, one.shape[-1])[:, -1].double().cpu() for one in (given, output)]
            kept[key] = (ends[0], ends[1])

        return keep

    return {module: keeper(key) for module, key in watched.items()}
