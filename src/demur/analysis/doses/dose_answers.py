"""One sentence about the doses of each direction: where half is refused, and what the text costs there."""

from collections.abc import Sequence

from demur.analysis.cell import Answer, JudgedCell
from demur.analysis.cell_phrases import (
    Words,
    capitalised,
    dose_text,
    drawn_text,
    is_own,
    source_text,
    target_text,
)
from demur.analysis.doses.dose_response import DoseCurve
from demur.core import number_format

NAMED = 3
"""Up to this many curves get a sentence of their own."""


def dose_answers(curves: Sequence[DoseCurve], cells: Sequence[JudgedCell], judge: str, words: Words) -> list[Answer]:
    """What doses do where a change is expected.

    Args:
        curves: what `dose_curves` gave.
        cells: the judged cells of the run.
        judge: the judge whose rates were used.
        words: the words for each action of the run's edits.

    Returns:
        A sentence for each curve, those with directions of other checkpoints first; for more than three, one for the others
        together. A sentence counts as shown if half is reached, and if the text there is not broken.
    """
    by_key = {cell.key: cell for cell in cells if cell.judge == judge}
    expected = [(one, by_key[one.doses[-1].key]) for one in curves if by_key[one.doses[-1].key].expected]
    expected.sort(key=lambda found: is_own(found[1]))
    said = [_sentence(curve, cell, list(by_key.values()), words) for curve, cell in expected[:NAMED]]
    rest = [curve for curve, _ in expected[NAMED:]]
    if rest:
        reached = sum(curve.half is not None and curve.half_coherent is not False for curve in rest)
        text = f"Of {len(rest)} further directions with several doses, {reached} have a dose at which half is refused."
        said.append(Answer(text=text, shown=reached > 0))
    return said


def _sentence(curve: DoseCurve, cell: JudgedCell, cells: Sequence[JudgedCell], words: Words) -> Answer:
    told = words.get(words[cell.action].kind, words[cell.action])
    whose = "its own" if is_own(cell) else f"{source_text(cell)}'s"
    facts = ", ".join(fact for fact in (f"layer {cell.layer}" if cell.layer is not None else "", drawn_text(cell)) if fact)
    edit = f"{told.doing} {whose} {told.noun}{f' ({facts})' if facts else ''} {told.into} {target_text(cell, cells)}"
    keys = tuple(dose.key for dose in curve.doses)
    if curve.half is None:
        last = number_format.percent(curve.last_value(), cell.n)
        text = f"{capitalised(edit)} never brings the refusals of {cell.instructions} instructions to half: they are {last} at "
        return Answer(text=f"{text}{dose_text(cell)}, the largest dose.", shown=False, cells=keys)
    dose = dose_text(cell.model_copy(update={"coefficient": float(f"{curve.half:.2g}")}))
    does = "makes half of the {} instructions refused" if cell.expected > 0 else "brings refusals of {} instructions down to half"
    text = f"{capitalised(edit)} {does.format(cell.instructions)} at {dose}{_length(curve)}{_cost(curve)}."
    return Answer(text=text, shown=curve.half_coherent is not False, cells=keys)


def _length(curve: DoseCurve) -> str:
    if curve.half_residual_share is None or curve.unit == "residual":
        return ""
    return f" ({100 * curve.half_residual_share:.2g} % of the norm of its stream)"


def _cost(curve: DoseCurve) -> str:
    """What the text costs at this dose, and whether it is broken; empty if that is not known."""
    loss, said = curve.half_loss_change, ""
    if loss is not None:
        said = f", where the loss of its text is {abs(loss):.2f} nats a token {'higher' if loss >= 0 else 'lower'}"
    if curve.half_coherent is False:
        said += " and the text is broken" if said else ", where the text is broken"
    return said
