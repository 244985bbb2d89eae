"""A condition on the prompt under which an edit acts, decided once for each row before it acts: conditional steering.

The prompt is read without edits. Its stream h at the place of the condition direction c is the mean over its tokens, or that of
its last token. The gate is open if cos(h, c) is above the threshold, or below it if the gate asks for that. Source: conditional
activation steering (Lee et al. 2024, arXiv 2409.05907). There, h is compared with the tanh of its projection on c, which loses
most of the sign; here the sign counts, because harmless prompts may lie on the other side.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from demur.core.errors import InputError, nearest
from demur.directions.direction import Direction

Tokens = Literal["all", "last"]
"""What of a prompt is compared with the condition direction: the mean over its tokens, or its last token."""


@dataclass(frozen=True)
class Gate:
    """A condition on the prompt. `demur.when` gives it to an edit, and `demur.find_gate` finds its threshold.

    Attributes:
        direction: the condition direction; it is compared with the stream at its own layer and site.
        threshold: the cosine at which the gate changes.
        above: whether the gate is open above the threshold, or else below it.
        tokens: `all` for the mean over the prompt's tokens, `last` for its last token.

    Raises:
        InputError: for a threshold that is no cosine, another choice of tokens, and a direction without a layer.

    Example:
        >>> import demur, torch
        >>> condition = demur.from_raw(torch.tensor([1.0, 0.0]), name="c", layer=1)
        >>> gate = demur.Gate(condition, threshold=0.5)
        >>> gate.opens(torch.tensor([[2.0, 0.0], [2.0, 2.0]])), gate.opens(torch.tensor([[0.0, 3.0]]))
        (True, False)
    """

    direction: Direction
    threshold: float
    above: bool = True
    tokens: Tokens | str = "all"

    def __post_init__(self) -> None:
        if not -1 <= self.threshold <= 1:
            raise InputError(f"the threshold of a gate is a cosine, from -1 to 1, not {self.threshold}")
        if self.tokens not in get_args(Tokens):
            raise InputError(f"{self.tokens!r} is not a choice of tokens for a gate; {nearest(self.tokens, get_args(Tokens))}")
        if not self.direction.says("layer"):
            name = self.direction.name
            raise InputError(f"the file of direction {name!r} has no layer, which a gate needs; load it with layer=...")

    def score(self, stream: Float[Tensor, "token d_model"]) -> float:
        """The cosine of a prompt's stream with the condition direction.

        Args:
            stream: the stream at the direction's place, at all tokens of the prompt or at its last one.
        """
        read = stream.double().mean(0)
        return float(torch.nn.functional.cosine_similarity(read, self.direction.vector.double(), dim=0, eps=1e-30))

    def passes(self, score: float) -> bool:
        """Whether the gate is open at this cosine."""
        return (score > self.threshold) == self.above

    def opens(self, stream: Float[Tensor, "token d_model"]) -> bool:
        """Whether the gate is open for a prompt; see `score`."""
        return self.passes(self.score(stream))
