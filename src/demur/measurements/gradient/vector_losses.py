"""The losses of a vector in a model whose weights stay as they are, for searches by gradient: ablate, add and retain.

- ablate: with the vector ablated everywhere, harmful instructions get the completions that they get with another direction
  ablated;
- add: with it added at one layer, harmless instructions get the completions that they get with that direction added;
- retain: with it ablated, the next tokens after harmless instructions stay as they are (KL).

Source: Wollschlaeger et al. 2025, arXiv 2502.17420, section 3. The other direction is usually the difference of means.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from demur.core.errors import InputError, WorkError
from demur.directions.direction import Direction
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


@dataclass(frozen=True)
class Example:
    """A prompt, a completion, and what is asked of the model there: one of the three losses."""

    loss: str
    prompt: tuple[int, ...]
    completion: tuple[int, ...]


def examples_of(
    checkpoint: Checkpoint,
    start: Direction,
    harmful: Instructions,
    harmless: Instructions,
    prompt: PromptLike,
    tokens: int,
) -> tuple[TransformersEngine, list[tuple[Example, ...]]]:
    """The engine of a search by gradient, and what it learns from: the three examples of each pair of instructions.

    Args:
        checkpoint: a checkpoint that transformers runs.
        start: the direction whose ablation and addition write the completions that are aimed at.
        harmful: harmful training instructions.
        harmless: harmless training instructions, as many.
        prompt: the prompt format, its name, or a text with `{instruction}`.
        tokens: the length of the completions.

    Raises:
        InputError: for an engine without gradients, without instructions, and if the two sides differ in number.
    """
    engine, texts = checkpoint.engine, [instruction_list(side) for side in (harmful, harmless)]
    if not isinstance(engine, TransformersEngine):
        raise InputError(f"a search by gradient needs the engine transformers, not {engine.name!r}; load the checkpoint with it")
    if not texts[0] or len(texts[0]) != len(texts[1]):
        raise InputError(f"a search needs as many harmful as harmless instructions, not {len(texts[0])} and {len(texts[1])}")
    return engine, _examples(checkpoint, start, texts[0], texts[1], bound_prompt(prompt, checkpoint), tokens)


def _examples(
    checkpoint: Checkpoint, start: Direction, harmful: Sequence[str], harmless: Sequence[str], bound: Prompt, tokens: int
) -> list[tuple[Example, ...]]:
    """The three examples of each pair of instructions, with the completions that are aimed at."""
    (ablated,) = generate(checkpoint, harmful, bound, [ablate(start)], max_new_tokens=tokens)
    added, plain = generate(checkpoint, harmless, bound, [add(start, 1.0, unit="raw"), None], max_new_tokens=tokens)
    ids = [[tuple(one) for one in bound.encode(side)] for side in (harmful, harmless)]
    return [
        (
            Example("ablate", ids[0][place], tuple(ablated[place].token_ids)),
            Example("add", ids[1][place], tuple(added[place].token_ids)),
            Example("retain", ids[1][place], tuple(plain[place].token_ids)),
        )
        for place in range(len(harmful))
    ]


class VectorLosses:
    """The losses of a vector in one model."""

    def __init__(self, engine: TransformersEngine, start: Direction, weights: LossWeights) -> None:
        """Take the model.

        Args:
            engine: runs the model.
            start: the direction whose place and raw norm the vector has where it is added.
            weights: the weights of the losses.
        """
        self._engine, self._norm, self._weights = engine, start.raw_norm, weights
        self._everywhere = ablate(start).points(engine.layout, engine.n_layers)
        self._place = add(start, 1.0).points(engine.layout, engine.n_layers)

    def total(self, vector: Tensor, examples: Sequence[tuple[Example, ...]], batch: int) -> float:
        """The mean loss over all examples, without gradients."""
        with torch.no_grad():
            parts = [examples[first : first + batch] for first in range(0, len(examples), batch)]
            sums = [float(self.loss(vector, [one for each in part for one in each])) * len(part) for part in parts]
        found = sum(sums) / len(examples)
        if not found < float("inf"):
            raise WorkError("the loss of the search is not finite; start from another direction, or lower the rate")
        return found

    def loss(self, vector: Tensor, examples: Sequence[Example]) -> Float[Tensor, ""]:
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

    def _logits(self, examples: Sequence[Example], table: EditTable) -> tuple[Float[Tensor, "token vocab"], Tensor]:
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
