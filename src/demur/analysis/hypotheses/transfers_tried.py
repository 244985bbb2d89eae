"""The cells that a hypothesis about a direction rests on: the settings in which the direction was tried."""

from collections.abc import Sequence
from typing import TypeVar

from demur.analysis.cell import Cell
from demur.analysis.hypotheses.post_hypotheses import Transfer
from demur.core.edit_words import WHEN

_INDUCING = ("add",)
_SUPPRESSING = ("affine", "ablate")
"""The first of these actions that was tried decides. Null directions do much under ablation to zero and little under affine
ablation, so the affine edit tells a direction from them; the post's own edit, ablation to zero, stands beside it."""

Tried = TypeVar("Tried", bound=Cell)


def transfers(cells: Sequence[Tried]) -> dict[Transfer, list[Tried]]:
    """Every direction that was tried in a checkpoint, with all cells in which an effect on refusals is expected.

    Args:
        cells: the cells of a run; those without an edit, with a null direction, or without an expected change are left out, and
            those with a direction of another estimator than the study's first, or with a gate: the hypotheses are about edits
            of every row with that one.

    Returns:
        Source, target and effect -> cells, in the order given. They can differ in action, arm, layer, dose and training pairs.
    """
    found: dict[Transfer, list[Tried]] = {}
    for cell in cells:
        if cell.control or cell.source is None or not cell.expected or cell.estimator or WHEN in cell.settings:
            continue
        if cell.action in _INDUCING and cell.instructions == "harmless":
            found.setdefault((cell.source, cell.target, "induces"), []).append(cell)
        elif cell.action in _SUPPRESSING and cell.instructions == "harmful":
            found.setdefault((cell.source, cell.target, "suppresses"), []).append(cell)
    return found


def deciding(cells: Sequence[Tried]) -> list[Tried]:
    """The cells of one transfer that decide about its hypothesis.

    Args:
        cells: all cells of the transfer.

    Returns:
        Those of one action: affine ablation before ablation to zero. Of several draws of training pairs the first one counts.
    """
    actions = {cell.action for cell in cells}
    action = next(each for each in (*_INDUCING, *_SUPPRESSING) if each in actions)
    seeds = [cell.pairs_seed for cell in cells if cell.action == action]
    return [cell for cell in cells if (cell.action, cell.pairs_seed) == (action, seeds[0])]
