"""Cells that are corrected together: those of one arm, one instruction set and one action. Null directions are apart."""

from typing import NamedTuple

from demur.analysis.cell import Cell

NO_EDIT = "none"


class CellGroup(NamedTuple):
    """What the cells of a group share.

    Attributes:
        target: the checkpoint.
        prompt: its prompt format.
        instructions: the instruction set.
        edit: the action of the edit, `none` without one; for null directions, with `control` behind it.
    """

    target: str
    prompt: str
    instructions: str
    edit: str


def group_of(cell: Cell) -> CellGroup:
    """The group of a cell."""
    edit = NO_EDIT if not cell.edited else f"{cell.action or cell.intervention}{' control' if cell.control else ''}"
    return CellGroup(cell.target, cell.prompt, cell.instructions, edit)
