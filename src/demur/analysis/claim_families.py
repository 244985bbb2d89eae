"""Which tests of a run are claims of the study, and which are not. Holm's correction is made within each of the two families.

A run has many edited cells. If all were in one family, each further control or dose would make it harder to show the effects that
the study is about.
"""

from collections.abc import Sequence

from demur.analysis.cell import Cell, Family, Record
from demur.analysis.hypotheses.transfers_tried import deciding, transfers


class DeclaredClaim(Record):
    """Claims that a study names before it is run. What is left out means any.

    Attributes:
        kind: the kind of edit.
        source: the checkpoint or the arm, `checkpoint/prompt`, that the direction comes from.
        target: the checkpoint or the arm that is edited.
        on: the instruction set.
    """

    kind: str
    source: str | None = None
    target: str | None = None
    on: str | None = None

    def covers(self, cell: Cell) -> bool:
        """Whether a cell is one of these claims."""
        wanted = (self.kind, self.source, self.target, self.on)
        source = (cell.source, f"{cell.source}/{cell.source_prompt}")
        has = ((cell.intervention,), source, (cell.target, f"{cell.target}/{cell.prompt}"), (cell.instructions,))
        return all(want is None or want in there for want, there in zip(wanted, has, strict=True))


def families(cells: Sequence[Cell], declared: Sequence[DeclaredClaim] | None = None) -> dict[str, Family]:
    """The family of every edited cell.

    Args:
        cells: the cells of a run.
        declared: the claims that the study names. If it names none, its claims are the edits on which a hypothesis rests; see
            `transfers_tried`. If there are none of these, they are the other edits from which a change is expected, with a
            direction of another checkpoint or without a direction; if there are none of these either, with a checkpoint's own.

    Returns:
        Cell key -> family.
    """
    tried = [cell for cell in cells if cell.edited and cell.expected and not cell.control]
    if declared is not None:
        claims = {cell.key for cell in tried if any(claim.covers(cell) for claim in declared)}
    else:
        rested_on = {cell.key for cells in transfers(tried).values() for cell in deciding(cells)}
        claims = rested_on or {cell.key for cell in tried if cell.source != cell.target} or {cell.key for cell in tried}
    found: dict[str, Family] = {}
    for cell in cells:
        if not cell.edited:
            continue
        if cell.control:
            found[cell.key] = "control"
        elif not cell.expected:
            found[cell.key] = "descriptive"
        else:
            found[cell.key] = "confirmatory" if cell.key in claims else "exploratory"
    return found
