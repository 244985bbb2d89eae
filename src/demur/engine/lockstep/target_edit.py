"""Edits of the target's own stream while both checkpoints run in lockstep: nothing is taken from the source."""

from contextlib import AbstractContextManager
from dataclasses import dataclass

from demur.engine.checkpoints import Checkpoint
from demur.engine.hooks import edited
from demur.interventions.edit_table import tabulate
from demur.interventions.intervention import RowEdits


@dataclass(frozen=True, eq=False)
class TargetEdit:
    """The target with edits of its stream, the same in every row.

    Attributes:
        edits: one edit, or several that act in order, as for `demur.generate`.
    """

    edits: RowEdits

    def acting_on(self, target: Checkpoint, prompt_width: int) -> AbstractContextManager[object]:
        """Inside, the edits act in every forward pass of the target.

        Args:
            target: the checkpoint.
            prompt_width: token positions of the prompt, padding included.

        Raises:
            InputError: for an edit that does not fit the checkpoint, or that has a gate.
            WorkError: on leaving, if an edit did not act.
        """
        table = tabulate([self.edits], target.layout, target.n_layers, target.d_model, target.device)
        return edited(target.model, target.layout, table, prompt_width=prompt_width)
