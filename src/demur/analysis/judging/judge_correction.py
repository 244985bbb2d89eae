"""Refusal rates corrected for the errors of a judge, where people labelled a sample of the completions."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from demur.analysis.cell import Cell
from demur.analysis.judging.cell_groups import CellGroup, group_of
from demur.analysis.judging.raters import Place, Rater, Sampled
from demur.analysis.judging.rating_records import CorrectedRate, ErrorsFrom
from demur.analysis.rates import Groups
from demur.core.agreement.corrected_rates import (
    Counted,
    JudgeErrors,
    Labelled,
    design_effect,
    prediction_powered,
    rogan_gladen,
)
from demur.core.statistics import wilson

ENOUGH, ENOUGH_EACH = 10, 3
"""The fewest labels from which a correction is computed, and the fewest among refusals and among others. If the judge calls fewer
completions refusals (or others), all of them must be labelled."""

_COVERED = 0.95
"""The least share of completions whose stratum has a label. Below it, the labels do not stand for all completions."""


@dataclass(frozen=True)
class _Truths:
    """What people said, and how much it counts.

    Attributes:
        refusal: the share of labellers who call a completion a refusal.
        weights: how many completions each one stands for.
        covered: the completions whose stratum has a label.
    """

    refusal: Mapping[Place, float]
    weights: Mapping[Place, float]
    covered: frozenset[Place]


def corrected_rates(
    judges: Sequence[Rater], people: Sequence[Rater], cells: Sequence[Cell], groups: Groups, sampled: Sampled
) -> list[CorrectedRate]:
    """Correct the rates of every judge.

    Args:
        judges: the judges.
        people: the labellers. Where they disagree on a completion, the mean of what they say counts.
        cells: the cells of the run.
        groups: the group of each instruction; near-duplicates are one group.
        sampled: how the labelled completions were drawn.

    Returns:
        One record for each judge and each arm, instruction set and action; none if nobody labelled anything. The errors of the
        judge are those on the same arm and edit if there are enough labels, else on the same arm, else in the whole run.
    """
    truths = _truths(people, sampled)
    if not truths.refusal:
        return []
    found = []
    for judge in judges:
        by_group: dict[CellGroup, list[Cell]] = {}
        for cell in cells:
            by_group.setdefault(group_of(cell), []).append(cell)
        said = _by_cell(judge)
        errors: dict[tuple[str, ...], JudgeErrors | None] = {}
        for group, mine in by_group.items():
            places = [place for cell in mine for place in said.get(cell.key, ())]
            if places:
                counted = _counted(judge, places, mine, groups)
                one = _raw(judge, group, mine, counted, sum(place in truths.refusal for place in places))
                own = _errors(judge, places, counted, truths)
                chosen = _chosen_errors(judge, group, by_group, said, groups, truths, errors)
                found.append(one.model_copy(update={**_powered(counted, own), **_by_errors(counted, chosen)}))
    return found


def _truths(people: Sequence[Rater], sampled: Sampled) -> _Truths:
    said: dict[Place, list[bool]] = {}
    for person in people:
        for place in person.given:
            said.setdefault(place, []).append(person.refuses(place))
    weights = sampled.weights(said)
    reached = {sampled.stratum[place] for place in weights}
    covered = frozenset(place for place, stratum in sampled.stratum.items() if stratum in reached)
    return _Truths({place: sum(said[place]) / len(said[place]) for place in weights}, weights, covered)


def _by_cell(judge: Rater) -> dict[str, list[Place]]:
    found: dict[str, list[Place]] = {}
    for place in judge.given:
        found.setdefault(place[0], []).append(place)
    return found


def _counted(judge: Rater, places: Sequence[Place], cells: Sequence[Cell], groups: Groups) -> Counted:
    sets = {cell.key: cell.instructions for cell in cells}
    refusals = [judge.refuses(place) for place in places]

    def cluster(place: Place) -> Hashable:
        known = groups.get(sets[place[0]], ())
        return sets[place[0]], known[place[1]] if place[1] < len(known) else -1 - place[1]

    return Counted(len(places), sum(refusals), design_effect(refusals, [cluster(place) for place in places]))


def _errors(judge: Rater, places: Sequence[Place], counted: Counted, truths: _Truths) -> JudgeErrors | None:
    """How the judge errs on these completions; None for too few labels."""
    if sum(place in truths.covered for place in places) < _COVERED * len(places):
        return None
    sides = []
    for refusal, size in ((True, counted.refusals), (False, counted.n - counted.refusals)):
        mine = [place for place in places if place in truths.weights and judge.refuses(place) == refusal]
        if len(mine) < min(ENOUGH_EACH, size):
            return None
        sides.append(Labelled(tuple(truths.refusal[one] for one in mine), tuple(truths.weights[one] for one in mine)))
    if sum(side.n for side in sides) < min(ENOUGH, counted.n):
        return None
    return JudgeErrors(counted, sides[0], sides[1])


def _chosen_errors(
    judge: Rater,
    group: CellGroup,
    by_group: Mapping[CellGroup, Sequence[Cell]],
    said: Mapping[str, Sequence[Place]],
    groups: Groups,
    truths: _Truths,
    known: dict[tuple[str, ...], JudgeErrors | None],
) -> tuple[ErrorsFrom, JudgeErrors] | None:
    """The errors of the judge on the nearest completions that have enough labels. `known` keeps what was computed before."""
    wanted: Sequence[tuple[ErrorsFrom, tuple[str, ...]]] = (
        ("arm and edit", (group.target, group.prompt, group.edit)),
        ("arm", (group.target, group.prompt)),
        ("run", ()),
    )
    for name, scope in wanted:
        if scope not in known:
            cells = [
                cell
                for other, mine in by_group.items()
                if (other.target, other.prompt, other.edit)[: len(scope)] == scope
                for cell in mine
            ]
            places = [place for cell in cells for place in said.get(cell.key, ())]
            known[scope] = _errors(judge, places, _counted(judge, places, cells, groups), truths)
        found = known[scope]
        if found is not None:
            return name, found
    return None


def _raw(judge: Rater, group: CellGroup, cells: Sequence[Cell], counted: Counted, labelled: int) -> CorrectedRate:
    return CorrectedRate(
        judge=judge.name,
        **group._asdict(),
        cells=tuple(cell.key for cell in cells),
        n=counted.n,
        refusals=counted.refusals,
        rate=counted.rate,
        ci95=wilson(counted.refusals, counted.n),
        labelled=labelled,
    )


def _powered(counted: Counted, own: JudgeErrors | None) -> dict[str, object]:
    if own is None:
        return {}
    found = prediction_powered(counted, own.refused, own.other)
    return {"prediction_powered": found.rate, "prediction_powered_ci95": found.interval}


def _by_errors(counted: Counted, chosen: tuple[ErrorsFrom, JudgeErrors] | None) -> dict[str, object]:
    if chosen is None:
        return {}
    where, errors = chosen
    found = rogan_gladen(counted, errors)
    facts: dict[str, object] = {
        "errors_from": where,
        "sensitivity": errors.sensitivity,
        "specificity": errors.specificity,
    }
    return facts if found is None else {**facts, "rogan_gladen": found.rate, "rogan_gladen_ci95": found.interval}
