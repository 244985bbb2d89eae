"""Walks trees of continuations level by level. What a forward pass is, and of how many models, the caller says.

One level of a tree is one decode step. Its batch has a row for each branch, with the keys and values of the branch before it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from demur.core.errors import NotFinite
from demur.engine.continuations.branch_cache import chosen_branches
from demur.engine.decode import require_finite
from demur.engine.engine_protocol import Branch

HELD = 3
"""While the logits of some branches are counted, about this many further arrays of their size exist for a moment."""

Choose = Callable[[Sequence[Branch], Tensor], Sequence[Sequence[int]]]
"""Gets some branches with the logits after each, (branch, vocab) or (run, branch, vocab), and gives for each branch the tokens
that are to be run after it."""

Step = Callable[[Tensor, Tensor, Sequence[DynamicCache], Sequence[Branch]], Tensor]
"""Runs one token of each branch: gets token ids (branch, 1), the mask (branch, seq), the caches, which it extends, and the
branches. Gives the logits after that token, (branch, vocab) or (run, branch, vocab)."""


@dataclass(frozen=True, eq=False)
class Level:
    """Branches of equal length whose last token has not run yet.

    Attributes:
        branches: the branches.
        places: for each branch, the place in `caches` and `mask` of the branch that it continues.
        caches: keys and values of the branches that are continued, one cache for each run of a model.
        mask: which of their token positions are real and not padding, (place, seq).
    """

    branches: tuple[Branch, ...]
    places: tuple[int, ...]
    caches: tuple[DynamicCache, ...]
    mask: Tensor

    def part(self, which: slice) -> "Level":
        """Some of the branches, with the keys and values of those alone that they continue."""
        places = torch.tensor(self.places[which])
        caches = tuple(chosen_branches(cache, places) for cache in self.caches)
        return Level(self.branches[which], tuple(range(len(places))), caches, self.mask[places])


def walk_levels(
    pending: list[Level], step: Step, follow: Choose, *, most_rows: Callable[[int], int], max_new_tokens: int
) -> None:
    """Run trees to their ends. A level with more branches than fit into one batch is cut, and its parts run in turn.

    Args:
        pending: the levels to begin with. The list is emptied, so that the caches of a level are freed as soon as nothing that is
            pending needs them.
        step: runs one token of each branch.
        follow: chooses the tokens to run after each branch.
        most_rows: from the tokens of a branch to the most such branches in a batch.
        max_new_tokens: the most tokens in a continuation, counting the one that is not run.
    """
    while pending:
        level = pending.pop()
        # A branch of this length would make a continuation longer than allowed.
        if not level.branches or (tokens := len(level.branches[0].tokens)) >= max_new_tokens:
            continue
        most = most_rows(tokens)
        if len(level.branches) > most:
            pending += [level.part(slice(most, None)), level.part(slice(most))]
            continue
        pending.append(_next_level(level, step, follow))


def _next_level(level: Level, step: Step, follow: Choose) -> Level:
    """Run the last token of each branch of a level."""
    # An index on the CPU works on every device; the cache of a spread model is on several.
    places = torch.tensor(level.places)
    caches = tuple(chosen_branches(cache, places) for cache in level.caches)
    mask = torch.cat((level.mask[places], level.mask.new_ones(len(places), 1)), dim=1)
    ids = torch.tensor([[branch.tokens[-1]] for branch in level.branches], device=mask.device)
    branches, at = grown(level.branches, step(ids, mask, caches, level.branches), follow)
    return Level(tuple(branches), tuple(at), caches, mask)


def grown(branches: Sequence[Branch], logits: Tensor, follow: Choose) -> tuple[list[Branch], list[int]]:
    """The branches that are one token longer.

    Args:
        branches: the branches.
        logits: the logits after each, (branch, vocab) or (run, branch, vocab).
        follow: chooses the tokens to run after each.

    Returns:
        The longer branches, and for each the place of the branch that it continues.

    Raises:
        NotFinite: with the row of a branch with logits that are not finite.
    """
    rows = [branch.row for branch in branches]
    for run in logits if logits.ndim == 3 else (logits,):
        require_finite(run, rows)
    longer, places = list[Branch](), list[int]()
    for place, (branch, tokens) in enumerate(zip(branches, follow(branches, logits), strict=True)):
        longer += [Branch(branch.row, (*branch.tokens, token)) for token in tokens]
        places += [place] * len(tokens)
    return longer, places


@contextmanager
def rows_of_all(indices: Sequence[int], follow: Choose) -> Iterator[Choose]:
    """Inside, rows are those of one batch. For `follow`, and in a `NotFinite`, they are those of all batches.

    Args:
        indices: the rows of the batch among all rows.
        follow: chooses the tokens to run after branches of all rows.

    Returns:
        What chooses the tokens to run after branches of the batch.
    """

    def named(branches: Sequence[Branch], logits: Tensor) -> Sequence[Sequence[int]]:
        return follow([Branch(indices[branch.row], branch.tokens) for branch in branches], logits)

    try:
        yield named
    except NotFinite as error:
        raise error.of_row(indices[error.row]) from error
