"""How much the spelling of a prompt alone moves the rate of refusals: small edits of its format, as typed values and sentences.

No stream is edited here. All spellings ask the same instructions. Pure functions of typed records.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import fmean

from demur.analysis.cell import Answer, Cell, Record
from demur.analysis.cell_phrases import named
from demur.analysis.edit_tests import Probabilities
from demur.analysis.rates import Groups, Refusals
from demur.core import number_format
from demur.core.effects.grouped_differences import GroupedChanges
from demur.core.effects.log_odds import Outcome
from demur.core.effects.paired_change import paired_change
from demur.core.statistics import LEVEL, wilson
from demur.inputs.prompt_edits import EDITS, split_edit

Interval = tuple[float, float]


class SpellingRate(Record):
    """One spelling of a prompt format.

    Attributes:
        edit: the small edit; empty for the format as it is.
        key: the cell.
        rate: the rate of refusals, or the mean probability of one, as a fraction.
        ci95: its 95 % interval over instructions.
        cosine: the cosine of its direction with that of the format as it is, the lowest of the study's layers; None if not known.
    """

    edit: str
    key: str
    rate: float
    ci95: Interval
    cosine: float | None = None


class PromptSpread(Record):
    """One prompt format of one checkpoint in several spellings, on the same instructions. Rates and changes are fractions.

    Attributes:
        checkpoint: the checkpoint.
        prompt: the format without a small edit.
        instructions: the instruction set.
        judge: the judge.
        outcome: whether these are rates of verdicts or mean probabilities of a refusal.
        n: the number of instructions on which all spellings are known.
        spellings: the format as it is, then each small edit.
        lowest: the place of the lowest rate in `spellings`.
        highest: the place of the highest rate.
        difference: the highest rate minus the lowest, on the same instructions.
        ci95: its 95 % interval over instructions, corrected for the choice among all pairs of spellings (Bonferroni).
    """

    checkpoint: str
    prompt: str
    instructions: str
    judge: str
    outcome: Outcome
    n: int
    spellings: tuple[SpellingRate, ...]
    lowest: int
    highest: int
    difference: float
    ci95: Interval


def prompt_spreads(
    cells: Sequence[Cell],
    refusals: Refusals,
    judge: str,
    *,
    groups: Groups | None = None,
    probabilities: Probabilities | None = None,
    cosines: Mapping[tuple[str, str], float] | None = None,
) -> list[PromptSpread]:
    """The spread of each arm over the small edits of its prompt format.

    Args:
        cells: all cells of a run; only those without an edit of the stream count.
        refusals: the verdicts.
        judge: the judge whose verdicts count.
        groups: groups of near-duplicate instructions; None if all are independent.
        probabilities: the probability of a refusal, by cell and instruction, where it was measured.
        cosines: the cosine of an arm's direction with that of its format as it is, by checkpoint and prompt.

    Returns:
        For each arm with small edits and each instruction set up to two: of verdicts, and of probabilities.
    """
    by_arm: dict[tuple[str, str, str], dict[str, Cell]] = {}
    for cell in cells:
        if not cell.edited:
            base, edit = split_edit(cell.prompt)
            by_arm.setdefault((cell.target, base, cell.instructions), {})[edit] = cell
    found = []
    for arm, spellings in by_arm.items():
        ordered = [spellings[edit] for edit in ("", *EDITS) if edit in spellings]
        if len(ordered) < 2:
            continue
        known = [refusals.get((cell.key, judge), {}) for cell in ordered]
        measured = [(probabilities or {}).get(cell.key, {}) for cell in ordered]
        given = None if groups is None else groups[arm[2]]
        both: tuple[tuple[Outcome, Sequence[Mapping[int, float]]], ...] = (("verdict", known), ("probability", measured))
        for outcome, outcomes in both:
            common = [place for place in outcomes[0] if all(place in each for each in outcomes)]
            if common:
                rows = [[float(each[place]) for place in common] for each in outcomes]
                own = list(common) if given is None else [given[place] for place in common]
                found.append(_spread((*arm, judge), outcome, ordered, rows, own, cosines))
    return found


def _spread(
    names: tuple[str, str, str, str],
    outcome: Outcome,
    cells: Sequence[Cell],
    rows: Sequence[Sequence[float]],
    groups: Sequence[int],
    cosines: Mapping[tuple[str, str], float] | None,
) -> PromptSpread:
    rates = [fmean(row) for row in rows]
    lowest, highest = rates.index(min(rates)), rates.index(max(rates))
    confidence = 1 - LEVEL / len(list(combinations(rows, 2)))
    if outcome == "verdict":
        refused = [[value > 0 for value in row] for row in rows]
        interval = paired_change(refused[lowest], refused[highest], groups).interval(confidence)
    else:
        interval = GroupedChanges.of(rows[lowest], rows[highest], groups).method.interval(confidence)
    checkpoint, prompt, instructions, judge = names
    return PromptSpread(
        checkpoint=checkpoint,
        prompt=prompt,
        instructions=instructions,
        judge=judge,
        outcome=outcome,
        n=len(groups),
        spellings=tuple(
            SpellingRate(
                edit=split_edit(cell.prompt)[1],
                key=cell.key,
                rate=rate,
                ci95=_interval_of(row, outcome, groups),
                cosine=(cosines or {}).get(cell.arm),
            )
            for cell, rate, row in zip(cells, rates, rows, strict=True)
        ),
        lowest=lowest,
        highest=highest,
        difference=rates[highest] - rates[lowest],
        ci95=interval,
    )


def _interval_of(row: Sequence[float], outcome: Outcome, groups: Sequence[int]) -> Interval:
    """The interval of one rate: Wilson's, or that of a mean between groups of instructions."""
    if outcome == "verdict":
        return wilson(int(sum(row)), len(row))
    low, high = GroupedChanges.of([0.0] * len(row), row, groups).method.interval()
    return max(0.0, low), high


def spelling_answers(spreads: Sequence[PromptSpread]) -> list[Answer]:
    """One sentence for each arm on harmful instructions.

    Args:
        spreads: what `prompt_spreads` gave.

    Returns:
        The sentences. One counts as shown if the interval of the largest difference does not hold 0.
    """
    mine = [one for one in spreads if one.instructions == "harmful"]
    return [_sentence(one) for one in mine]


def _sentence(one: PromptSpread) -> Answer:
    low, high = (one.spellings[place] for place in (one.lowest, one.highest))
    what = "the rate of refusals" if one.outcome == "verdict" else "the probability of a refusal"
    reach = [number_format.percent(rate.rate, one.n) for rate in (low, high)]
    change = number_format.change(one.difference, one.ci95, one.n)
    text = (
        f"The spelling of the prompt {named(one.prompt)} alone moves {what} of {named(one.checkpoint)} on {one.instructions} "
        f"instructions from {reach[0]} ({_spelt(low)}) to {reach[1]} ({_spelt(high)}), over {len(one.spellings)} spellings "
        f"(largest paired difference {change})."
    )
    return Answer(text=text, shown=not one.ci95[0] <= 0 <= one.ci95[1], cells=())


def _spelt(one: SpellingRate) -> str:
    return one.edit or "as it is"
