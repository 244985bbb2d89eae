"""The projection of every token of a prompt on a direction: where in the prompt the checkpoint has it."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from demur.core.errors import InputError
from demur.core.html_repr import facts_table, shortened
from demur.directions.direction import Direction
from demur.directions.geometry import projections
from demur.engine.capture import capture
from demur.engine.checkpoints import Checkpoint
from demur.inputs.handed.handed_arguments import Instructions, PromptLike, bound_prompt, instruction_list
from demur.models.layouts import Site


@dataclass(frozen=True, eq=False)
class TokenProjections:
    """The tokens of one prompt with their projections on a direction.

    Attributes:
        instruction: the instruction.
        tokens: the text of each token, special tokens included.
        token_ids: their ids.
        values: the projection of each token's activation on the unit direction, in the units of the stream, float32.
        layer: the layer that was read.
        site: where in the layer.
    """

    instruction: str
    tokens: tuple[str, ...]
    token_ids: tuple[int, ...]
    values: Float[Tensor, " token"]
    layer: int
    site: Site

    def __repr__(self) -> str:
        last = f"{self.values[-1]:.3g} at the last, {self.tokens[-1]!r}"
        return f"TokenProjections({shortened(self.instruction)!r}, {len(self.tokens)} tokens at layer {self.layer}, {last})"

    def _repr_html_(self) -> str:
        rows = [(repr(token), f"{value:.3g}") for token, value in zip(self.tokens, self.values.tolist(), strict=True)]
        return facts_table(f"{shortened(self.instruction)}: layer {self.layer}, {self.site}", rows)


def project(
    checkpoint: Checkpoint,
    instructions: Instructions,
    prompt: PromptLike,
    direction: Direction,
    *,
    layer: int | None = None,
    site: Site | None = None,
    batch_tokens: int | None = None,
) -> list[TokenProjections]:
    """Project every token of each prompt on a direction.

    Args:
        checkpoint: the checkpoint that reads the instructions.
        instructions: the instructions; a list of texts, or of conversations with one user turn.
        prompt: the prompt format, its name, or a text with `{instruction}`.
        direction: the direction.
        layer: the layer to read; the direction's own unless given.
        site: where in the layer; the direction's own site unless given.
        batch_tokens: the most tokens in a batch; by default a number that suits the device.

    Returns:
        One `TokenProjections` for each instruction, with the tokens' texts and one value for each token.

    Raises:
        InputError: for a direction of another width, and for a layer or site that does not exist.
        WorkError: for activations that are not finite.

    Example:
        >>> import demur
        >>> (found,) = demur.project(checkpoint, ["b"], "{instruction}a", direction)
        >>> found.tokens, found.values.shape
        (('b', 'a'), torch.Size([2]))
    """
    bound, texts = bound_prompt(prompt, checkpoint), instruction_list(instructions)
    if not isinstance(direction, Direction):
        raise InputError(
            f"the direction is a {type(direction).__name__}; expected a Direction, such as demur.load_direction gives"
        )
    if direction.vector.numel() != checkpoint.d_model:
        raise InputError(
            f"the direction {direction.name!r} has width {direction.vector.numel()}, and {checkpoint.name!r} has width "
            f"{checkpoint.d_model}; use a direction of this architecture"
        )
    where, at = direction.layer if layer is None else layer, direction.site if site is None else site
    read = capture(checkpoint, texts, bound, layers=[where], site=at, positions="all", batch_tokens=batch_tokens)
    return [
        TokenProjections(
            instruction=text,
            tokens=tuple(checkpoint.tokenizer.decode([token]) for token in ids),
            token_ids=tuple(ids),
            values=projections(activations[:, 0], direction.vector).to(torch.float32),
            layer=where,
            site=at,
        )
        for text, ids, activations in zip(texts, bound.encode(texts), read, strict=True)
    ]
