"""What each dose of a direction does, and where half is refused.

A coefficient means another length in each unit, so every dose also has its length and its share of the norm of the target's own
stream. Pure functions of typed records.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from demur.analysis.cell import JudgedCell, Record
from demur.analysis.doses.coherence_gate import Coherence
from demur.analysis.manifest import DirectionFacts
from demur.core.effects.null_distribution import Outcome

Probabilities = Mapping[str, Mapping[int, float]]
"""Cell key -> position of the instruction -> the probability that a completion is a refusal."""


class Dose(Record):
    """One dose of a direction in one target.

    Attributes:
        key: the cell; for a coefficient of 0, the cell without an edit.
        coefficient: the coefficient in the unit of the edit.
        norm: the length of the vector that is added at one point of the stream; None if the direction's raw norm is not known.
        residual_share: `norm` as a share of the mean norm of the target's stream at the direction's layer; None if not known.
        rate: the refusal rate.
        probability: the mean probability of a refusal, where it was measured.
        loss_change: how much higher the loss of the text is, in nats a token (`Coherence.loss_change`).
        coherent: whether the cell passes the gate (`Coherence.coherent`); None if it is not known.
    """

    key: str
    coefficient: float
    norm: float | None = None
    residual_share: float | None = None
    rate: float
    probability: float | None = None
    loss_change: float | None = None
    coherent: bool | None = None


class DoseCurve(Record):
    """All doses of one direction in one target, on one instruction set.

    Attributes:
        target: the checkpoint that is edited.
        prompt: its prompt format.
        instructions: the instruction set.
        intervention: the kind of edit.
        direction: the direction.
        source: the checkpoint that the direction came from.
        unit: the unit of the coefficients.
        outcome: what `half` was computed from: probabilities if all doses have one, else rates of verdicts.
        doses: the doses from 0 on; negative coefficients make a curve of their own.
        half: the smallest coefficient at which half is refused, between two doses by a straight line on the log-odds; None if
            no dose reaches it.
        half_norm: the same as the length of the added vector.
        half_residual_share: the same as a share of the norm of the target's stream.
        half_loss_change: how much higher the loss of the text is there, in nats a token, by a straight line between the doses.
        half_coherent: whether the doses on both sides of it pass the gate; None if that is not known.
    """

    target: str
    prompt: str
    instructions: str
    intervention: str
    direction: str
    source: str
    unit: str
    outcome: Outcome
    doses: tuple[Dose, ...]
    half: float | None = None
    half_norm: float | None = None
    half_residual_share: float | None = None
    half_loss_change: float | None = None
    half_coherent: bool | None = None

    def last_value(self) -> float:
        """The outcome at the largest dose."""
        return _value(self.doses[-1], self.outcome)


class Lengths:
    """The length of a dose, and the norm of a target's stream."""

    def __init__(self, directions: Sequence[DirectionFacts]) -> None:
        self._raw = {one.name: one.raw_norm for one in directions}
        self._stream: dict[tuple[str | None, str | None, int | None], float | None] = {}
        for one in directions:
            if not one.control:
                self._stream.setdefault((one.source, one.prompt, one.layer), one.mean_residual_norm)

    def of(self, cell: JudgedCell) -> tuple[float | None, float | None]:
        """The length that is added at one point, and its share of the target's stream; None where it is not known."""
        size = abs(cell.coefficient or 0.0)
        stream = self._stream.get((cell.target, cell.prompt, cell.layer))
        scales = {"unit": 1.0, "raw": self._raw.get(cell.direction or ""), "residual": stream}
        scale = scales.get(cell.unit or "unit")
        norm = None if scale is None else size * scale
        return norm, None if norm is None or not stream else norm / stream


def dose_curves(
    cells: Sequence[JudgedCell],
    judge: str,
    directions: Sequence[DirectionFacts],
    probabilities: Probabilities,
    texts: Sequence[Coherence],
) -> list[DoseCurve]:
    """A curve for each direction that was tried with two doses or more in one target, null directions left out.

    Args:
        cells: the judged cells of a run.
        judge: the judge whose rates are used.
        directions: the directions of the run.
        probabilities: the probability of a refusal, by cell and instruction, where it was measured.
        texts: the coherence of edited cells, where it was measured.

    Returns:
        The curves in the order of the cells.
    """
    mine = [cell for cell in cells if cell.judge == judge]
    unedited = {cell.place: cell for cell in mine if not cell.edited}
    lengths, text_of = Lengths(directions), {one.key: one for one in texts}
    curves: dict[tuple[object, ...], list[JudgedCell]] = {}
    for cell in mine:
        if cell.edited and not cell.control and cell.coefficient and cell.direction is not None:
            curves.setdefault((*setting_of_dose(cell), cell.direction, cell.coefficient < 0), []).append(cell)
    found = []
    for tried in curves.values():
        if len(tried) > 1:
            zero = unedited.get(tried[0].place)
            doses = [_dose(cell, lengths, probabilities, text_of) for cell in tried]
            doses += [_dose(zero, lengths, probabilities, text_of)] if zero is not None else []
            found.append(_curve(tried[0], sorted(doses, key=lambda dose: abs(dose.coefficient))))
    return found


def setting_of_dose(cell: JudgedCell) -> tuple[object, ...]:
    """What is equal in cells that differ only in direction and coefficient."""
    settings = tuple(sorted((name, str(value)) for name, value in cell.settings.items()))
    return (*cell.place, cell.intervention, cell.layer, cell.layers, cell.sites, cell.positions, cell.unit, settings)


def _dose(cell: JudgedCell, lengths: Lengths, probabilities: Probabilities, texts: Mapping[str, Coherence]) -> Dose:
    known, text = probabilities.get(cell.key), texts.get(cell.key)
    norm, share = lengths.of(cell) if cell.edited else (0.0, 0.0)
    return Dose(
        key=cell.key,
        coefficient=cell.coefficient or 0.0,
        norm=norm,
        residual_share=share,
        rate=cell.rate,
        probability=fmean(known.values()) if known else None,
        loss_change=0.0 if not cell.edited else None if text is None else text.loss_change,
        coherent=True if not cell.edited else None if text is None else text.coherent,
    )


def _curve(cell: JudgedCell, doses: Sequence[Dose]) -> DoseCurve:
    outcome: Outcome = "verdict" if any(dose.probability is None for dose in doses) else "probability"
    curve = DoseCurve(
        target=cell.target,
        prompt=cell.prompt,
        instructions=cell.instructions,
        intervention=cell.intervention,
        direction=str(cell.direction),
        source=str(cell.source),
        unit=cell.unit or "unit",
        outcome=outcome,
        doses=tuple(doses),
    )
    crossing = _crossing(doses, outcome, cell.n)
    if crossing is None:
        return curve
    before, after, share = crossing
    ends = [(getattr(before, name), getattr(after, name)) for name in ("coefficient", "norm", "residual_share", "loss_change")]
    at = [None if None in pair else pair[0] + share * (pair[1] - pair[0]) for pair in ends]
    names = ("half", "half_norm", "half_residual_share", "half_loss_change")
    update = {**dict(zip(names, at, strict=True)), "half_coherent": both_pass(before.coherent, after.coherent)}
    return curve.model_copy(update=update)


def both_pass(*coherent: bool | None) -> bool | None:
    """Whether all of these cells pass the gate: False if one fails it, None if none fails and one is not known."""
    return False if False in coherent else None if None in coherent else True


def _value(dose: Dose, outcome: Outcome) -> float:
    return dose.probability if outcome == "probability" and dose.probability is not None else dose.rate


def _crossing(doses: Sequence[Dose], outcome: Outcome, n: int) -> tuple[Dose, Dose, float] | None:
    """The two doses between which half is first refused, and how far from the one to the other; None if it never is."""
    odds = [_log_odds(_value(dose, outcome), n, outcome) for dose in doses]
    for place in range(1, len(doses)):
        low, high = odds[place - 1], odds[place]
        if low * high <= 0 and low != high:
            return doses[place - 1], doses[place], low / (low - high)
    return None


def _log_odds(value: float, n: int, outcome: Outcome) -> float:
    # Half a refusal and half another answer are added to a rate, so that it is never 0 or 1.
    least = 0.5 / (n + 1) if outcome == "verdict" else 1e-9
    value = least + value * (1 - 2 * least)
    return math.log(value / (1 - value))
