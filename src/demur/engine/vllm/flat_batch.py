"""Tells the rows of a forward pass of vLLM apart. vLLM gives the tokens of all its rows one after the other, without padding.

A row is recognised by its token ids, from its first token to the last of its prompt. So numbers can be given to a wrong row only
if two rows have equal tokens, and then their numbers are equal. What is not recognised raises `WorkError`.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from jaxtyping import Bool
from torch import Tensor

from demur.core.errors import WorkError

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Span:
    """The tokens of one row in a forward pass.

    Attributes:
        start: the place of its first token among all tokens of the pass.
        stop: the place after its last token.
        position: the position of its first token in its row, from 0.
    """

    start: int
    stop: int
    position: int


def spans(positions: Sequence[int], starts: Sequence[int]) -> list[Span]:
    """The rows of a forward pass.

    Args:
        positions: the position of each token in its row. Tokens after the last row are padding.
        starts: where each row starts among the tokens, and where the last one ends; from vLLM's attention.

    Returns:
        One span for each row.

    Raises:
        WorkError: if the two do not agree.
    """
    found = [Span(start, stop, positions[start]) for start, stop in pairwise(starts) if stop > start]
    edges = [0, *(one.stop for one in found)]
    agrees = len(positions) >= edges[-1] > 0 and all(one.start == edge for one, edge in zip(found, edges, strict=False))
    if not agrees or any(
        list(positions[one.start : one.stop]) != list(range(one.position, one.position + one.stop - one.start)) for one in found
    ):
        raise WorkError(
            f"the rows of a forward pass of vLLM start at {list(starts)}, and its tokens have positions {list(positions)[:50]}; "
            "these do not agree, so its rows cannot be told apart; use engine='transformers'"
        )
    return found


@dataclass(frozen=True)
class Passed:
    """The rows of one forward pass.

    Attributes:
        whole: for each row whose tokens all ran in this pass, its span and its token ids.
        generated: which tokens come after the prompt of their row, (token,).
    """

    whole: tuple[tuple[Span, Ids], ...]
    generated: Bool[Tensor, " token"]


@dataclass
class ExpectedRows:
    """The rows that are to run in some forward passes, and which of them did.

    Attributes:
        prompt_lengths: the token ids that a row begins with -> how many of them are its prompt. The others count as generated,
            and so do all that follow.
        seen: how often each of these rows ran from its first token on.
    """

    prompt_lengths: dict[Ids, int]
    seen: Counter[Ids] = field(default_factory=Counter)

    def recognise(self, ids: Sequence[int], positions: Sequence[int], starts: Sequence[int]) -> Passed:
        """The rows of a forward pass.

        Args:
            ids: the token ids of the pass.
            positions: see `spans`.
            starts: see `spans`.

        Raises:
            WorkError: for a row that is not expected, or that does not run from its first token on.
        """
        whole, generated = list[tuple[Span, Ids]](), torch.zeros(len(ids), dtype=torch.bool)
        for span in spans(positions, starts):
            own = tuple(ids[span.start : span.stop])
            if span.position > 0 and len(own) == 1:
                # A decode step. Every row has a prompt of at least one token, so this token was generated.
                generated[span.start] = True
                continue
            if span.position > 0 or own not in self.prompt_lengths:
                raise WorkError(
                    f"vLLM ran {len(own)} tokens from position {span.position} on that are not one of the "
                    f"{len(self.prompt_lengths)} prompts it was given; it may have cut a prompt in pieces or taken a row "
                    "back for lack of memory; use a smaller batch_rows, or engine='transformers'"
                )
            self.seen[own] += 1
            whole.append((span, own))
            generated[span.start + self.prompt_lengths[own] : span.stop] = True
        return Passed(tuple(whole), generated)

    def check_all_ran(self, asked: Iterable[Ids]) -> None:
        """Check that every row ran.

        Args:
            asked: the token ids of each row that was given to vLLM, with repeats.

        Raises:
            WorkError: if a row did not run.
        """
        missing = Counter(asked) - self.seen
        if missing:
            raise WorkError(
                f"{missing.total()} rows did not run through the layers where demur reads and edits vLLM's model; their numbers "
                "would be those of an unedited model, so nothing is returned; use engine='transformers'"
            )
