"""Edits of the target's own stream while both checkpoints run in lockstep: nothing is taken from the source."""

from collections.abc import Hashable, MutableMapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from demur.engine.checkpoints import Checkpoint
from demur.engine.hooks import edited
from demur.engine.lockstep.matched_pair import MatchedPair
from demur.interventions.edit_table import EditTable, tabulate
from demur.interventions.intervention import RowEdits


@dataclass(frozen=True, eq=False)
class TargetEdit:
    """The target with edits of its stream, the same in every row.

    Attributes:
        edits: one edit, or several that act in order, as for `demur.generate`.
    """

    edits: RowEdits

    @property
    def reads(self) -> None:
        """It needs nothing of the source."""
        return None

    def acts_on(self, part: Literal["prompt", "generated"]) -> bool:  # noqa: ARG002
        """The edits say themselves at which token positions they act."""
        return True

    def begins(self, target: Checkpoint) -> int:
        """How many blocks of the target run as without it."""
        return min((where.layer for where in self._table(target)), default=target.n_layers)

    def check(self, target: Checkpoint) -> None:
        """Check that the edits fit a checkpoint.

        Raises:
            InputError: for an edit that does not, or that has a gate.
        """
        self._table(target)

    def recording(
        self,
        source: Checkpoint,  # noqa: ARG002
        kept: MutableMapping[Hashable, Tensor],  # noqa: ARG002
    ) -> AbstractContextManager[object]:
        """Keeps nothing."""
        return nullcontext()

    def acting_on(
        self,
        pair: MatchedPair,
        kept: MutableMapping[Hashable, Tensor],  # noqa: ARG002
        prompt_width: int,
    ) -> AbstractContextManager[object]:
        """Inside, the edits act in every forward pass of the target.

        Args:
            pair: both checkpoints.
            kept: nothing that is needed here.
            prompt_width: token positions of the prompt, padding included.

        Raises:
            WorkError: on leaving, if an edit did not act.
        """
        target = pair.target
        return edited(target.model, target.layout, self._table(target), prompt_width=prompt_width)

    def _table(self, target: Checkpoint) -> EditTable:
        return tabulate([self.edits], target.layout, target.n_layers, target.d_model, target.device)
