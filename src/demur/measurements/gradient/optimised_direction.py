"""A refusal direction that is found by gradient descent: refusal direction optimisation (Wollschlaeger et al. 2025).

The direction v of length one minimises three losses of a model whose weights stay as they are:

- ablate: with v ablated everywhere, harmful instructions get the completions that they get with another direction ablated;
- add: with v added at one layer, harmless instructions get the completions that they get with that direction added;
- retain: with v ablated, the next tokens after harmless instructions stay as they are (KL).

Source: arXiv 2502.17420, section 3. The other direction is usually the difference of means, from which the search also starts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from demur.core.errors import InputError, WorkError
from demur.core.progress import Progress, silent
from demur.directions.direction import Direction, from_raw
from demur.engine.batching import pad_left, position_ids
from demur.engine.checkpoints import Checkpoint
from demur.engine.generate import generate
from demur.engine.hooks import edited
from demur.engine.transformers_engine import TransformersEngine
from demur.inputs.handed.handed_arguments import Instructions, PromptLike, bound_prompt, instruction_list
from demur.inputs.prompts import Prompt
from demur.interventions.edit_table import EditTable
from demur.interventions.intervention import ablate, add
from demur.interventions.stream_edit import StreamEdit


@dataclass(frozen=True)
class LossWeights:
    """The weights of the three losses; those of the paper unless given."""

    ablate: float = 1.0
    add: float = 0.2
    retain: float = 1.0


@dataclass(frozen=True, eq=False)
class OptimisedDirection:
    """What a search found.

    Attributes:
        direction: the direction with the lowest loss, at the place and with the raw norm of the one that the search began with.
        losses: the loss over all training instructions: of the direction at the start, then after each epoch.
    """

    direction: Direction
    losses: tuple[float, ...]


@dataclass(frozen=True)
class _Example:
    """A prompt, a completion, and what is asked of the model there: one of the three losses."""

    loss: str
    prompt: tuple[int, ...]
    completion: tuple[int, ...]


def optimise_direction(
    checkpoint: Checkpoint,
    start: Direction,
    harmful: Instructions,
    harmless: Instructions,
    prompt: PromptLike,
    *,
    epochs: int = 3,
    batch: int = 8,
    tokens: int = 30,
    rate: float = 0.01,
    weights: LossWeights | None = None,
    progress: Progress = silent,
) -> OptimisedDirection:
    """Find a refusal direction by gradient descent. The weights of the checkpoint do not change.

    Args:
        checkpoint: a checkpoint that transformers runs.
        start: the direction that the search begins with, such as the difference of means. Its ablation and its addition at its
            own layer also write the completions that are aimed at.
        harmful: harmful training instructions.
        harmless: harmless training instructions, as many.
        prompt: the prompt format, its name, or a text with `{instruction}`.
        epochs: how often all instructions are gone through.
        batch: the number of instructions of each kind in one step.
        tokens: the length of the completions.
        rate: the step size of Adam.
        weights: the weights of the losses.
        progress: called with the number of instructions that were just used.

    Returns:
        The direction and the losses. It is the start itself if no epoch lowers the loss.

    Raises:
        InputError: for an engine without gradients, without instructions, and if the two sides differ in number.
        WorkError: if the loss is not finite.

    Example:
        >>> import demur
        >>> found = demur.optimise_direction(checkpoint, start, harmful, harmless, prompt)  # doctest: +SKIP
        >>> found.losses  # doctest: +SKIP
        (3.1, 2.2, 1.9, 1.8)

        The lines are skipped because they load a checkpoint.
    """
    engine, texts = checkpoint.engine, [instruction_list(side) for side in (harmful, harmless)]
    if not isinstance(engine, TransformersEngine):
        raise InputError(f"a search by gradient needs the engine transformers, not {engine.name!r}; load the checkpoint with it")
    if not texts[0] or len(texts[0]) != len(texts[1]):
        raise InputError(f"a search needs as many harmful as harmless instructions, not {len(texts[0])} and {len(texts[1])}")
    examples = _examples(checkpoint, start, texts[0], texts[1], bound_prompt(prompt, checkpoint), tokens)
    search = _Search(engine, start, weights or LossWeights())
    best, losses = _descended(search, start, examples, epochs, batch, rate, progress)
    if losses[0] <= min(losses):
        return OptimisedDirection(start, losses)
    facts = start.provenance.replaced(method="gradient of ablate, add and retain losses")
    raw = best.double() / best.double().norm() * start.raw_norm
    found = from_raw(raw, name=start.name, layer=start.layer, position=start.position, site=start.site, provenance=facts)
    return OptimisedDirection(found, losses)


def _descended(
    search: "_Search",
    start: Direction,
    examples: Sequence[tuple["_Example", ...]],
    epochs: int,
    batch: int,
    rate: float,
    progress: Progress,
) -> tuple[Float[Tensor, " d_model"], tuple[float, ...]]:
    """The vector with the lowest loss, and the loss at the start and after each epoch. Steps stay on the unit sphere."""
    vector = start.vector.clone().requires_grad_()
    optimiser = torch.optim.Adam([vector], lr=rate, betas=(0.9, 0.98), amsgrad=True)
    generator = torch.Generator().manual_seed(0)
    best, losses = vector.detach().clone(), [search.total(vector, examples, batch)]
    for _ in range(epochs):
        order = torch.randperm(len(examples), generator=generator).tolist()
        for first in range(0, len(order), batch):
            chosen = [one for place in order[first : first + batch] for one in examples[place]]
            optimiser.zero_grad()
            # `grad` gives the gradient of the vector alone; `backward` would also store those of the weights.
            (gradient,) = torch.autograd.grad(search.loss(vector, chosen), [vector])
            # Only the part across the vector turns it; its length is fixed.
            vector.grad = gradient - (gradient @ vector.detach()) * vector.detach()
            torch.nn.utils.clip_grad_norm_([vector], 10.0)
            optimiser.step()
            with torch.no_grad():
                vector /= vector.norm()
            progress(min(batch, len(order) - first))
        losses.append(search.total(vector, examples, batch))
        if losses[-1] <= min(losses):
            best = vector.detach().clone()
    return best, tuple(losses)


def _examples(
    checkpoint: Checkpoint, start: Direction, harmful: Sequence[str], harmless: Sequence[str], bound: Prompt, tokens: int
) -> list[tuple[_Example, ...]]:
    """The three examples of each pair of instructions, with the completions that are aimed at."""
    (ablated,) = generate(checkpoint, harmful, bound, [ablate(start)], max_new_tokens=tokens)
    added, plain = generate(checkpoint, harmless, bound, [add(start, 1.0, unit="raw"), None], max_new_tokens=tokens)
    ids = [[tuple(one) for one in bound.encode(side)] for side in (harmful, harmless)]
    return [
        (
            _Example("ablate", ids[0][place], tuple(ablated[place].token_ids)),
            _Example("add", ids[1][place], tuple(added[place].token_ids)),
            _Example("retain", ids[1][place], tuple(plain[place].token_ids)),
        )
        for place in range(len(harmful))
    ]


class _Search:
    """The losses of a vector in one model."""

    def __init__(self, engine: TransformersEngine, start: Direction, weights: LossWeights) -> None:
        self._engine, self._norm, self._weights = engine, start.raw_norm, weights
        self._everywhere = ablate(start).points(engine.layout, engine.n_layers)
        self._place = add(start, 1.0).points(engine.layout, engine.n_layers)

    def total(self, vector: Tensor, examples: Sequence[tuple[_Example, ...]], batch: int) -> float:
        """The mean loss over all examples, without gradients."""
        with torch.no_grad():
            parts = [examples[first : first + batch] for first in range(0, len(examples), batch)]
            sums = [float(self.loss(vector, [one for each in part for one in each])) * len(part) for part in parts]
        found = sum(sums) / len(examples)
        if not found < float("inf"):
            raise WorkError("the loss of the search is not finite; start from another direction, or lower the rate")
        return found

    def loss(self, vector: Tensor, examples: Sequence[_Example]) -> Float[Tensor, ""]:
        """The weighted sum of the three losses, each a mean over tokens."""
        of = {name: [one for one in examples if one.loss == name] for name in ("ablate", "add", "retain")}
        ablated: EditTable = {where: (StreamEdit(removed=vector[None, None]),) for where in self._everywhere}
        added: EditTable = {where: (StreamEdit(offset=self._norm * vector[None, None]),) for where in self._place}
        with torch.no_grad():
            plain = self._logits(of["retain"], {})[0].log_softmax(-1)
        kept = self._logits(of["retain"], ablated)[0].log_softmax(-1)
        retain = (plain.exp() * (plain - kept)).sum(-1).mean()
        losses = [torch.nn.functional.cross_entropy(*self._logits(of[name], table)) for name, table in
                  (("ablate", ablated), ("add", added))]  # fmt: skip
        return self._weights.ablate * losses[0] + self._weights.add * losses[1] + self._weights.retain * retain

    def _logits(self, examples: Sequence[_Example], table: EditTable) -> tuple[Float[Tensor, "token vocab"], Tensor]:
        """The logits before each token of the completions, and these tokens."""
        model, device = self._engine.model, self._engine.device
        prompts, before = pad_left([one.prompt for one in examples], self._engine.pad_id, device)
        flipped, after = pad_left([one.completion[::-1] for one in examples], self._engine.pad_id, device)
        ids, mask = torch.cat((prompts, flipped.flip(1)), dim=1), torch.cat((before, after.flip(1)), dim=1)
        width = flipped.shape[1]
        with edited(model, self._engine.layout, table, prompt_width=prompts.shape[1]):
            output = model(
                input_ids=ids, attention_mask=mask, position_ids=position_ids(mask), use_cache=False, logits_to_keep=width + 1
            )
        real = after.flip(1).bool()
        return output.logits[:, -width - 1 : -1].float()[real], ids[:, -width:][real]
