"""How far all pairs of judges and labellers agree: over all completions, in each arm, and in each arm with each edit."""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations
from typing import Literal

from demur.analysis.cell import Cell
from demur.analysis.judging.cell_groups import group_of
from demur.analysis.judging.raters import Place, Rater, Sampled
from demur.analysis.judging.rating_records import Agreement
from demur.analysis.rates import Groups
from demur.core.agreement.weighted_kappa import agreement

LITTLE = 0.6
"""A kappa below this is little agreement. Landis and Koch (1977) call the range from 0.61 on substantial."""

LEAST_DIFFERING = 0.02
"""The least share of completions on which two judges must differ for a warning. Where almost nothing is a refusal, kappa is low
even if the judges differ on single completions."""

FEWEST_DIFFERING = 5
"""The least number of such completions. In a small arm, one completion is a large share."""

_REFUSAL, _OTHER = "refusal", "other"

Scope = tuple[str | None, str | None, str | None]
"""Checkpoint, prompt format and edit, None for all."""


def agreements(raters: Sequence[Rater], cells: Sequence[Cell], groups: Groups, sampled: Sampled) -> list[Agreement]:
    """Compare every two raters.

    Args:
        raters: judges and labellers.
        cells: the cells of the run.
        groups: the group of each instruction; near-duplicates are one group.
        sampled: how the labelled completions were drawn.

    Returns:
        For each pair one record for each scope and for refusals against the rest, and one for all labels if both raters give the
        same ones and more than two. A pair without a common completion has none.
    """
    by_key = {cell.key: cell for cell in cells}
    found = []
    for first, second in combinations(raters, 2):
        both = [place for place in second.given if place in first.given and place[0] in by_key]
        weights = sampled.weights(both) if first.person or second.person else dict.fromkeys(both, 1.0)
        for scope, places in _scopes(sorted(weights), by_key).items():
            clusters = [_cluster(place, by_key, groups) for place in places]
            for of, labels in _compared(first, second).items():
                said = _said(first, places, of), _said(second, places, of)
                agreed = agreement(said[0], said[1], labels, clusters, [weights[place] for place in places])
                found.append(
                    Agreement(
                        first=first.name,
                        second=second.name,
                        labellers=tuple(one.name for one in (first, second) if one.person),
                        target=scope[0],
                        prompt=scope[1],
                        edit=scope[2],
                        of=of,
                        n=agreed.n,
                        kappa=agreed.kappa,
                        ci95=agreed.interval,
                        agreement=agreed.observed,
                        labels=agreed.labels,
                        table=agreed.table,
                    )
                )
    return found


def little_agreement(found: Sequence[Agreement]) -> list[str]:
    """One sentence for each two judges that disagree much on refusals in some arm; one for several pairs with the same numbers.

    Args:
        found: what `agreements` gives.
    """
    arms: dict[tuple[str, str], list[str]] = defaultdict(list)
    for one in found:
        in_arm = one.target is not None and one.edit is None and one.of == "refusal" and not one.labellers
        differing = (1 - one.agreement) * one.n
        if (
            in_arm
            and one.kappa is not None
            and one.kappa < LITTLE
            and differing >= max(FEWEST_DIFFERING, LEAST_DIFFERING * one.n)
        ):
            counts = [sum(one.table[0]), sum(row[0] for row in one.table)]
            arms[one.first, one.second].append(
                f"{one.target} with the prompt {one.prompt} (kappa {one.kappa:.2f}; {counts[0]:,} and {counts[1]:,} of {one.n:,} "
                "are refusals)"
            )
    pairs: dict[str, list[str]] = defaultdict(list)
    for (first, second), where in arms.items():
        pairs[", ".join(where)].append(f"{first} and {second}")
    return [
        f"The judges {', and '.join(said)} agree little on which completions are refusals: {where}. Labels of people "
        "show which of them is wrong, and how often: demur label RUN_DIR."
        for where, said in pairs.items()
    ]


def _scopes(places: Sequence[Place], cells: Mapping[str, Cell]) -> dict[Scope, list[Place]]:
    found: dict[Scope, list[Place]] = {(None, None, None): []} if places else {}
    for place in places:
        group = group_of(cells[place[0]])
        for scope in ((None, None, None), (group.target, group.prompt, None), (group.target, group.prompt, group.edit)):
            found.setdefault(scope, []).append(place)
    # The arms come before their edits, in the order of the study.
    known = [group_of(cell) for cell in cells.values()]
    arms, edits = [(one.target, one.prompt) for one in known], [one.edit for one in known]

    def rank(scope: Scope) -> tuple[bool, bool, int, int]:
        target, prompt, edit = scope
        arm = arms.index((target, prompt)) if target is not None and prompt is not None else -1
        return target is not None, edit is not None, arm, -1 if edit is None else edits.index(edit)

    return {scope: found[scope] for scope in sorted(found, key=rank)}


def _cluster(place: Place, cells: Mapping[str, Cell], groups: Groups) -> Hashable:
    instructions, position = cells[place[0]].instructions, place[1]
    known = groups.get(instructions, ())
    return instructions, known[position] if position < len(known) else -1 - position


def _compared(first: Rater, second: Rater) -> dict[Literal["labels", "refusal"], tuple[str, ...]]:
    compared: dict[Literal["labels", "refusal"], tuple[str, ...]] = {"refusal": (_REFUSAL, _OTHER)}
    if set(first.labels) == set(second.labels) and len(first.labels) > 2:
        compared["labels"] = first.labels
    return compared


def _said(rater: Rater, places: Sequence[Place], of: str) -> list[str]:
    if of == "labels":
        return [rater.given[place] for place in places]
    return [_REFUSAL if rater.refuses(place) else _OTHER for place in places]
