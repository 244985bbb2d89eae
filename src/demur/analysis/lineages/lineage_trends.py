"""Computes what changes along the checkpoints of a study, where it has three or more: refusals, directions and cosines.

Every checkpoint is asked the same instructions. So a trend is a slope within each instruction, and its interval is over
instructions, with near-duplicates as one group. The checkpoints are taken as given. Their places are equally spaced, from 0 for
the first to 1 for the last: training steps are often spaced like powers of two, and would give the last ones all the weight.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from demur.analysis.cell import Answer, Cell, JudgedCell
from demur.analysis.cell_phrases import dose_text, named
from demur.analysis.lineages.lineage_record import Lineage, Reach, Trend
from demur.analysis.manifest import DirectionFacts
from demur.analysis.rates import Groups, Refusals
from demur.core import number_format
from demur.core.edit_words import WHEN
from demur.core.effects.bounded_means import mean_interval
from demur.core.effects.grouped_differences import GroupedChanges
from demur.core.statistics import LEVEL, holm

FEWEST = 3
"""From this number of checkpoints on, a study has a trend."""


@dataclass(frozen=True)
class LineageVerdicts:
    """What a lineage is computed from.

    Attributes:
        judged: the judged cells of a run.
        refusals: the verdicts.
        judge: the judge whose verdicts count.
        groups: groups of near-duplicate instructions; None if all are independent.
    """

    judged: Sequence[JudgedCell]
    refusals: Refusals
    judge: str
    groups: Groups | None = None

    @property
    def cells(self) -> list[JudgedCell]:
        """The cells under the judge."""
        return [cell for cell in self.judged if cell.judge == self.judge]

    def of(self, cell: Cell) -> Mapping[int, bool]:
        """The verdicts on the completions of a cell, by the position of the instruction."""
        return self.refusals.get((cell.key, self.judge), {})

    def grouped(self, instructions: str, positions: Sequence[int]) -> list[int]:
        """The group of each of some instructions."""
        return list(positions) if self.groups is None else [self.groups[instructions][position] for position in positions]


def lineage_of(
    verdicts: LineageVerdicts,
    checkpoints: Sequence[str],
    directions: Sequence[DirectionFacts] = (),
    cosines: Mapping[tuple[str, str], float] | None = None,
) -> Lineage | None:
    """What changes along the checkpoints of a study.

    Args:
        verdicts: the cells and verdicts.
        checkpoints: the checkpoints in the order of the study.
        directions: the directions of the run.
        cosines: the cosine of each pair of directions, by their names.

    Returns:
        The lineage; None for fewer than `FEWEST` checkpoints.
    """
    if len(checkpoints) < FEWEST:
        return None
    of_checkpoint = _own_directions(directions, checkpoints)
    pairs = cosines or {}
    names = [of_checkpoint.get(name) for name in checkpoints]
    return Lineage(
        checkpoints=tuple(checkpoints),
        trends=tuple(_trends(verdicts, checkpoints)),
        reaches=tuple(_reaches(verdicts, checkpoints)),
        cosine_to_previous=(None, *(_cosine(pairs, one, other) for one, other in pairwise(names))),
        cosine_to_last=tuple(_cosine(pairs, one, names[-1]) for one in names),
    )


def _own_directions(directions: Sequence[DirectionFacts], checkpoints: Sequence[str]) -> dict[str, str]:
    """The first direction of each checkpoint: of its first prompt format, seed and layer."""
    found: dict[str, str] = {}
    for one in directions:
        if not one.control and one.source is not None and one.source in checkpoints:
            found.setdefault(one.source, one.name)
    return found


def _cosine(cosines: Mapping[tuple[str, str], float], one: str | None, other: str | None) -> float | None:
    return None if one is None or other is None else cosines.get((one, other))


def _trends(verdicts: LineageVerdicts, checkpoints: Sequence[str]) -> list[Trend]:
    found: list[tuple[str, str, int, tuple[float, tuple[float, float], float]]] = []
    unedited = [cell for cell in verdicts.cells if not cell.edited]
    for instructions in dict.fromkeys(cell.instructions for cell in unedited):
        asked = [cell for cell in unedited if cell.instructions == instructions]
        for prompt, series in _series(asked, checkpoints).items():
            given = [verdicts.of(cell) for cell in series]
            common = [position for position in given[0] if all(position in each for each in given)]
            if common:
                rows = [[each[position] for each in given] for position in common]
                found.append((instructions, prompt, len(common), trend(rows, verdicts.grouped(instructions, common))))
    adjusted = holm([p for *_, (_, _, p) in found])
    return [
        Trend(instructions=label, prompt=prompt, n=n, slope=slope, ci95=ci95, p=p, p_holm=corrected)
        for (label, prompt, n, (slope, ci95, p)), corrected in zip(found, adjusted, strict=True)
    ]


def _series(cells: Sequence[JudgedCell], checkpoints: Sequence[str]) -> dict[str, list[JudgedCell]]:
    """The cells of all checkpoints in order, for each prompt format that all of them have; if there is none, under the first."""
    by_arm = {cell.arm: cell for cell in cells}
    prompts = list(dict.fromkeys(cell.prompt for cell in cells))
    shared = [prompt for prompt in prompts if all((name, prompt) in by_arm for name in checkpoints)]
    if shared:
        return {prompt: [by_arm[name, prompt] for name in checkpoints] for prompt in shared}
    first: dict[str, JudgedCell] = {}
    for cell in cells:
        first.setdefault(cell.target, cell)
    return {"": [first[name] for name in checkpoints]} if all(name in first for name in checkpoints) else {}


def trend(rows: Sequence[Sequence[float]], groups: Sequence[int]) -> tuple[float, tuple[float, float], float]:
    """The mean slope over instructions of their outcomes at the checkpoints.

    Args:
        rows: for each instruction, its outcome at each checkpoint in order, from 0 to 1.
        groups: the group of each instruction.

    Returns:
        The change from the first to the last checkpoint along a straight line, its 95 % interval, and the two-sided p value of no
        trend: a t test between groups, or sign flips for fewer than ten groups. The interval also contains that of
        `mean_interval`, which has a width even if all slopes are the same; for the same reason the p value is never smaller than
        the smallest one that sign flips of the groups can give.

    Example:
        >>> slope, (low, high), p = trend([[0, 0, 1]] * 12 + [[0, 1, 1]] * 8, range(20))
        >>> slope, round(low, 2), round(high, 2), p < 0.001
        (1.0, 0.76, 1.0, True)
    """
    count = len(rows[0])
    weights = [place / (count - 1) - 0.5 for place in range(count)]
    spread = sum(weight * weight for weight in weights)
    most = sum(weight for weight in weights if weight > 0) / spread
    slopes = [sum(weight * value for weight, value in zip(weights, row, strict=True)) / spread for row in rows]
    between, interval = _between(slopes, most, groups)
    p = min(1.0, 2 * min(between.method.p_at_most(0.0), between.method.p_at_least(0.0)))
    least = 2.0 ** (1 - len(between.sums))
    return sum(slopes) / len(slopes), interval, max(p, least)


def _between(values: Sequence[float], most: float, groups: Sequence[int]) -> tuple[GroupedChanges, tuple[float, float]]:
    """The values between groups, and the interval of their mean; see `trend`."""
    # Scaled to at most 1, because the tests between groups are written for differences of rates.
    between = GroupedChanges.of([0.0] * len(values), [value / most for value in values], groups)
    (low, high), (over_low, over_high) = mean_interval(values, most), between.method.interval()
    return between, (min(low, most * over_low), max(high, most * over_high))


def _reaches(verdicts: LineageVerdicts, checkpoints: Sequence[str]) -> list[Reach]:
    baselines = {cell.place: cell for cell in verdicts.cells if not cell.edited}
    groups: dict[tuple[str, str, str], dict[str, list[JudgedCell]]] = {}
    for cell in verdicts.cells:
        other = cell.control or cell.estimator or WHEN in cell.settings
        if cell.expected and not other and cell.source in checkpoints and cell.place in baselines:
            key = (cell.action, dose_text(cell), cell.instructions)
            groups.setdefault(key, {}).setdefault(str(cell.source), []).append(cell)
    found = []
    for (action, dose, instructions), sources in groups.items():
        for source in (name for name in checkpoints if name in sources):
            own = [cell for cell in sources[source] if cell.target == source]
            others = [cell for cell in sources[source] if cell.target != source]
            changes = _mean_changes(verdicts, others, baselines)
            if not changes:
                continue
            moved = list(changes.values())
            found.append(
                Reach(
                    source=source,
                    action=action,
                    dose=dose,
                    instructions=instructions,
                    targets=len(others),
                    n=len(moved),
                    change=sum(moved) / len(moved),
                    ci95=_between(moved, 1.0, verdicts.grouped(instructions, list(changes)))[1],
                    own=own[0].rate - baselines[own[0].place].rate if own else None,
                )
            )
    return found


def _mean_changes(
    verdicts: LineageVerdicts, cells: Sequence[JudgedCell], baselines: Mapping[tuple[str, str, str], JudgedCell]
) -> dict[int, float]:
    """For each instruction that has a verdict everywhere, the mean change over some edited cells from their baselines."""
    pairs = [(verdicts.of(baselines[cell.place]), verdicts.of(cell)) for cell in cells]
    if not pairs:
        return {}
    shared = set(pairs[0][0]).intersection(*(each for pair in pairs for each in pair))
    common = [at for at in pairs[0][0] if at in shared]
    rows = [[other[at] - one[at] for at in common] for one, other in pairs]
    return {at: sum(changes) / len(pairs) for at, changes in zip(common, zip(*rows, strict=True), strict=True)}


def trend_answers(found: Lineage | None) -> list[Answer]:
    """One sentence for the trend on harmful instructions under each prompt format.

    Args:
        found: the lineage of a run, None if it has none.

    Returns:
        The sentences. One counts as shown if the trend is significant after Holm's correction.
    """
    if found is None:
        return []
    return [_sentence(found, one) for one in found.trends if one.instructions == "harmful"]


def _sentence(found: Lineage, one: Trend) -> Answer:
    shown, digits = one.p_holm < LEVEL, number_format.decimals(one.n)
    size = f"{number_format.points(abs(one.slope), digits).removeprefix('+')} points"
    low, high = sorted(abs(bound) for bound in one.ci95) if one.ci95[0] * one.ci95[1] > 0 else one.ci95
    first, last = named(found.checkpoints[0]), named(found.checkpoints[-1])
    where = f"Along the {len(found.checkpoints)} checkpoints from {first} to {last}"
    under = f" under {named(one.prompt)}" if one.prompt else ""
    tested = f"{number_format.p_in_words(one.p_holm)}{', Holm' if len(found.trends) > 1 else ''}; slopes within instructions"
    if shown:
        verb = "rises" if one.slope > 0 else "falls"
        text = f"{where}, the refusal rate of harmful instructions{under} {verb} by {size} "
        text += f"{number_format.interval((low, high), digits)} on a straight line through their order ({tested})"
    else:
        text = f"{where}, it is not shown that the refusal rate of harmful instructions{under} rises or falls "
        text += f"({number_format.points(one.slope, digits)} points {number_format.interval(one.ci95, digits)}, {tested})"
    mixed = "" if one.prompt else "; the checkpoints share no prompt format, so this mixes weights and format"
    return Answer(text=f"{text}{mixed}.", shown=shown)
