"""Which edits are clean: refusals of harmful instructions against what an edit does to everything else. Pure functions.

An edit is on the front of an arm if no other edit of that arm is at least as good in every measure and better in one. An edit is
valid if it keeps to the bounds. The best one is the valid edit that leaves the fewest refusals; there may be none.
"""

from collections.abc import Mapping, Sequence

from demur.analysis.cell import JudgedCell, Record
from demur.analysis.doses.coherence_gate import Coherence

LEAST_REFUSALS = 0.1
"""An arm that refuses a smaller share of harmful instructions shows nothing: there is nothing to remove."""


class Bounds(Record):
    """What an edit may do beside removing refusals.

    Attributes:
        kl: the most that it may change the next token after harmless instructions, in nats.
        harmless: the most that it may change the refusal rate of harmless instructions, up or down.
    """

    kl: float
    harmless: float


class TriedEdit(Record):
    """One edit with one direction, or with several together, in the arm that they were read from.

    Attributes:
        key: its cell on harmful instructions.
        intervention: its kind.
        direction: the direction or subspace.
        estimator: what found it; empty for the study's first estimator.
        layer: the layer at which it was read; None for several.
        coefficient: the dose; None for a kind that takes none.
        unit: its unit.
        n: the number of harmful instructions.
        harmful: the share of them that is refused.
        ci95: its 95 % interval.
        harmless_change: the change of the refusal rate of harmless instructions.
        kl: the change of the next token after harmless instructions, in nats.
        loss_change: how much higher the loss of the text is, in nats a token; None if too few completions are no refusals.
        on_front: whether no other edit of the arm is at least as good in every measure and better in one.
        dropped: why it is not valid; empty if it is.
    """

    key: str
    intervention: str
    direction: str
    estimator: str = ""
    layer: int | None = None
    coefficient: float | None = None
    unit: str | None = None
    n: int
    harmful: float
    ci95: tuple[float, float]
    harmless_change: float
    kl: float | None
    loss_change: float | None = None
    on_front: bool = False
    dropped: str = ""


class ArmFront(Record):
    """The edits of one arm, the cleanest first.

    Attributes:
        arm: the arm, as `checkpoint/prompt`.
        harmful: its refusal rate on harmful instructions without an edit.
        harmless: the same on harmless ones.
        tried: its edits: the valid ones by the refusals that they leave, then the others.
        best: the key of the valid edit that leaves the fewest refusals; None if no edit is valid.
        problem: why the arm shows nothing; empty if it does.
    """

    arm: str
    harmful: float
    harmless: float
    tried: tuple[TriedEdit, ...] = ()
    best: str | None = None
    problem: str = ""

    def reasons(self) -> dict[str, int]:
        """Why edits are not valid, with the number of edits."""
        found: dict[str, int] = {}
        for one in self.tried:
            if one.dropped:
                found[one.dropped] = found.get(one.dropped, 0) + 1
        return found


class EditFront(Record):
    """What `demur select --by front` finds.

    Attributes:
        judge: the judge whose verdicts count.
        instructions: the number of validation instructions of each kind.
        bounds: what a valid edit may do.
        arms: one entry for each arm.
    """

    judge: str
    instructions: int
    bounds: Bounds
    arms: tuple[ArmFront, ...]


def edit_fronts(cells: Sequence[JudgedCell], texts: Sequence[Coherence], judge: str, bounds: Bounds) -> tuple[ArmFront, ...]:
    """The front of every arm.

    Args:
        cells: judged cells on harmful and harmless instructions, with edits and without. An edit that has no cell on harmless
            instructions is left out, and so are null directions.
        texts: the coherence of edited cells.
        judge: the judge whose verdicts count.
        bounds: what a valid edit may do.

    Returns:
        One front for each arm, in the order of the cells.
    """
    mine, coherence = [cell for cell in cells if cell.judge == judge and not cell.control], {one.key: one for one in texts}
    by_key = {cell.key: cell for cell in mine}
    before = {(cell.arm, cell.instructions): cell.rate for cell in mine if not cell.edited}
    fronts = []
    for arm in dict.fromkeys(cell.arm for cell in mine):
        harmful, harmless = before.get((arm, "harmful")), before.get((arm, "harmless"))
        if harmful is None or harmless is None:
            continue
        name = "/".join(arm)
        if harmful < LEAST_REFUSALS:
            fronts.append(
                ArmFront(arm=name, harmful=harmful, harmless=harmless, problem="it hardly refuses harmful instructions")
            )
            continue
        pairs = [
            (cell, by_key[twin])
            for cell in mine
            if cell.arm == arm and cell.edited and cell.instructions == "harmful" and (twin := _twin(cell)) in by_key
        ]
        tried = [_tried(cell, other, harmful, harmless, coherence, bounds) for cell, other in pairs]
        placed = [one.model_copy(update={"on_front": not any(_beats(other, one) for other in tried)}) for one in tried]
        placed.sort(key=lambda one: (bool(one.dropped), one.harmful, one.kl or 0.0))
        best = next((one.key for one in placed if not one.dropped), None)
        fronts.append(ArmFront(arm=name, harmful=harmful, harmless=harmless, tried=tuple(placed), best=best))
    return tuple(fronts)


def _twin(cell: JudgedCell) -> str:
    """The key of the same edit on harmless instructions."""
    return cell.key.replace("|harmful|", "|harmless|", 1)


def _tried(
    cell: JudgedCell,
    twin: JudgedCell,
    harmful: float,
    harmless: float,
    coherence: Mapping[str, Coherence],
    bounds: Bounds,
) -> TriedEdit:
    text = coherence.get(cell.key)
    found = TriedEdit(
        key=cell.key,
        intervention=cell.intervention,
        direction=cell.direction or "",
        estimator=cell.estimator,
        layer=cell.layer,
        coefficient=cell.coefficient,
        unit=cell.unit,
        n=cell.n,
        harmful=cell.rate,
        ci95=cell.ci95,
        harmless_change=twin.rate - harmless,
        kl=None if text is None else text.divergence,
        loss_change=None if text is None else text.loss_change,
    )
    return found.model_copy(update={"dropped": _why_not(found, harmful, text, bounds)})


def _why_not(one: TriedEdit, before: float, text: Coherence | None, bounds: Bounds) -> str:
    if one.kl is None:
        return "its change of harmless prompts is not known"
    if text is not None and text.coherent is False:
        return "its text is broken"
    if one.kl > bounds.kl:
        return f"it changes the next token after harmless instructions by more than {bounds.kl:g} nats"
    if abs(one.harmless_change) > bounds.harmless + 1e-9:
        return f"it changes refusals of harmless instructions by more than {100 * bounds.harmless:g} points"
    return "" if one.harmful < before else "it removes no refusals"


def _beats(one: TriedEdit, other: TriedEdit) -> bool:
    """Whether one edit is at least as good as another in every measure, and better in one. What is not known counts as worst."""
    mine, theirs = _measures(one), _measures(other)
    return mine != theirs and all(a <= b for a, b in zip(mine, theirs, strict=True))


def _measures(one: TriedEdit) -> tuple[float, ...]:
    worst = float("inf")
    # The loss is not known where nearly all completions are refusals. This says nothing about their text.
    return one.harmful, abs(one.harmless_change), worst if one.kl is None else one.kl, one.loss_change or 0.0
