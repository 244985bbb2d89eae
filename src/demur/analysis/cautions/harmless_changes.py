"""Warns of edits that change refusals of harmless instructions more than those of harmful ones."""

from collections.abc import Sequence

from demur.analysis.cell import Comparison, JudgedCell
from demur.core.number_format import decimals, points
from demur.core.statistics import LEVEL

NAMED = 4
"""A warning names up to this many edits."""


def harmless_changes(cells: Sequence[JudgedCell], compared: Sequence[Comparison], judge: str) -> list[str]:
    """One warning for each arm with such edits, null directions left out.

    An edit is named if a change of refusals is expected of it on harmful instructions, and if it changes those of harmless ones
    more, by a change that is significant without correction: a warning is no claim.

    Args:
        cells: the judged cells of a run.
        compared: their comparisons with the unedited targets.
        judge: the judge whose verdicts count.
    """
    changes = {row.key: row for row in compared if row.judge == judge}
    mine = {cell.key: cell for cell in cells if cell.judge == judge and cell.edited and not cell.control}
    found: dict[str, list[str]] = {}
    for cell in mine.values():
        twin = cell.key.replace("|harmful|", "|harmless|", 1)
        if cell.instructions != "harmful" or not cell.expected or twin not in mine or {cell.key, twin} - set(changes):
            continue
        harmful, harmless = changes[cell.key], changes[twin]
        if harmless.p_value < LEVEL and abs(harmless.difference) > abs(harmful.difference):
            named = f"{cell.action} {cell.direction or ''}".strip()
            said = [points(row.difference, decimals(row.n)) for row in (harmless, harmful)]
            found.setdefault("/".join(cell.arm), []).append(f"{named} ({said[0]} points, and {said[1]} on harmful ones)")
    return [_warning(arm, edits) for arm, edits in found.items()]


def _warning(arm: str, edits: Sequence[str]) -> str:
    more = f", and {len(edits) - NAMED} more" if len(edits) > NAMED else ""
    verb = "changes" if len(edits) == 1 else "change"
    return (
        f"In {arm}, {'an edit' if len(edits) == 1 else f'{len(edits)} edits'} {verb} refusals of harmless instructions more than "
        f"those of harmful ones: {'; '.join(edits[:NAMED])}{more}."
    )
