"""The results of a run in a few sentences, computed from its cells: which checkpoints refuse, and what each kind of edit changes.

Each sentence gives its rates with intervals. If the data do not show an effect, it says "not shown"; for edits,
`edit_tests.EditTest.shown` decides this. A kind of edit that was not tried gets a sentence that says so.
"""

from collections.abc import Sequence
from typing import NamedTuple

from demur.analysis.cell import Answer, JudgedCell
from demur.analysis.cell_phrases import (
    Words,
    capitalised,
    change_text,
    dose_text,
    drawn_text,
    edit_text,
    is_own,
    null_text,
    prompts_of,
    rate_text,
    source_text,
    target_text,
    uncapitalised,
    where_it_acts,
)
from demur.analysis.edit_tests import EditTest, same_setting
from demur.analysis.hypotheses.harm_contrast import harm_contrast
from demur.analysis.rates import Groups, Refusals, paired_verdicts
from demur.core import number_format
from demur.core.edit_words import EditWords
from demur.core.effects.independent_rates import IndependentDifference
from demur.core.effects.paired_change import PairedChange, paired_change
from demur.core.statistics import LEVEL, holm

NAMED = 3
"""Up to this many arms or cells are named one by one."""

_PAIR = ("harmful", "harmless")
"""The instruction sets from which directions are made."""

_UNFINISHED = "Refusal rates without an edit are not shown yet: these cells are not finished."


def answers(
    cells: Sequence[JudgedCell],
    tests: Sequence[EditTest],
    refusals: Refusals,
    judge: str,
    lineage: Sequence[str],
    words: Words,
    *,
    groups: Groups | None = None,
    matched: bool = False,
) -> list[Answer]:
    """One sentence about the checkpoints without an edit, one for each further instruction set, and one for each action tried.

    Args:
        cells: the judged cells of a run.
        tests: the tests of the edits from which a change is expected.
        refusals: the verdicts from which both were computed.
        judge: the judge whose verdicts count.
        lineage: the checkpoints in the order of the study.
        words: the words for each action of the kinds of edit that the sentences are about, grouped by kind.
        groups: groups of near-duplicate instructions; None if all are independent.
        matched: whether each harmless instruction is the twin of the harmful one at the same position.

    Returns:
        The sentences in the order of `words`; none if the judge gave no verdict.
    """
    mine = [cell for cell in cells if cell.judge == judge]
    if not mine:
        return []
    found = [_without_edit(mine, _Verdicts(refusals, judge, groups, matched), lineage), *_of_further_sets(mine, lineage)]
    for kind in dict.fromkeys(each.kind for each in words.values()):
        actions = [each for each in words.values() if each.kind == kind]
        sentences = [sentence for action in actions for sentence in _of_action(action, tests, mine)]
        found += sentences or [_not_tried(actions[0])]
    return found


class _Verdicts(NamedTuple):
    """The verdicts of one judge, and what is known of the instructions."""

    refusals: Refusals
    judge: str
    groups: Groups | None
    matched: bool

    def of_harm(self, harmful: JudgedCell, harmless: JudgedCell) -> PairedChange | IndependentDifference:
        """The rate of one arm on harmful instructions against that on harmless ones."""
        return harm_contrast(harmful, harmless, self.refusals, groups=self.groups, matched=self.matched).change

    def change(self, before: JudgedCell, after: JudgedCell) -> PairedChange | None:
        """The change from one cell to another, instruction by instruction; None if they share none."""
        found = paired_verdicts(self.refusals, self.judge, before.key, after, self.groups)
        return None if found is None else paired_change(*found)


def _without_edit(cells: Sequence[JudgedCell], verdicts: _Verdicts, lineage: Sequence[str]) -> Answer:
    unedited = sorted((cell for cell in cells if not cell.edited), key=lambda cell: lineage.index(cell.target))
    harmless = {cell.arm: cell for cell in unedited if cell.instructions == "harmless"}
    twins = [(cell, harmless[cell.arm]) for cell in unedited if cell.instructions == "harmful" and cell.arm in harmless]
    if not twins:
        return Answer(text=_UNFINISHED, shown=False)
    if twins[0][0].target == twins[-1][0].target:
        contrasts = [_harmful_against_harmless(*twin, cells, verdicts) for twin in twins]
    else:
        contrasts = _last_against_first([harmful for harmful, _ in twins], cells, verdicts)
    adjusted, how = holm([p for *_, p in contrasts]), "Holm" if len(contrasts) > 1 else ""
    tests = [(against, likely and p < LEVEL, _p(p, how)) for (against, likely, _), p in zip(contrasts, adjusted, strict=True)]
    tested = [f"{against} ({p})" if holds else f"it is not shown that {against} ({p})" for against, holds, p in tests]
    stated = [cell.key for twin in _named(twins) for cell in twin]
    return Answer(
        text=f"{'; '.join((_rates(twins, cells), *tested))}.",
        shown=any(holds for _, holds, _ in tests),
        cells=tuple(dict.fromkeys(stated)),
    )


def _named(twins: Sequence[tuple[JudgedCell, JudgedCell]]) -> Sequence[tuple[JudgedCell, JudgedCell]]:
    """The arms that a sentence names: all, or for many arms the one that refuses least and the one that refuses most."""
    return [pick(twins, key=lambda twin: twin[0].rate) for pick in (min, max)] if len(twins) > NAMED else twins


def _rates(twins: Sequence[tuple[JudgedCell, JudgedCell]], cells: Sequence[JudgedCell]) -> str:
    """The rates of each arm on harmful and harmless instructions; for many arms, the lowest and the highest."""
    if len(twins) > NAMED:
        (least, least_other), (most, most_other) = _named(twins)
        return (
            f"Without an edit, refusal rates of the {len(twins)} arms range from {target_text(least, cells)} "
            f"({rate_text(least)} of harmful and {rate_text(least_other)} of harmless instructions) to "
            f"{target_text(most, cells)} ({rate_text(most)} and {rate_text(most_other)})"
        )
    named = [f"{target_text(one, cells)} {rate_text(one)} and {rate_text(other)}" for one, other in twins[1:]]
    one, other = twins[0]
    first = f"{target_text(one, cells)} refuses {rate_text(one)} of harmful and {rate_text(other)} of harmless instructions"
    return f"Without an edit, {first}, {_listed(named)}" if named else f"Without an edit, {first}"


def _of_further_sets(cells: Sequence[JudgedCell], lineage: Sequence[str]) -> list[Answer]:
    """The rates without an edit on each instruction set that is neither `harmful` nor `harmless`, a sentence for each set."""
    unedited = sorted((cell for cell in cells if not cell.edited), key=lambda cell: lineage.index(cell.target))
    found = []
    for name in dict.fromkeys(cell.instructions for cell in unedited if cell.instructions not in _PAIR):
        mine = [cell for cell in unedited if cell.instructions == name]
        shown = mine if len(mine) <= NAMED else [pick(mine, key=lambda cell: cell.rate) for pick in (min, max)]
        first, *others = shown
        rest = [f"{target_text(cell, cells)} {rate_text(cell)}" for cell in others]
        said = _listed([f"{target_text(first, cells)} refuses {rate_text(first)}", *rest])
        more = f" (the lowest and the highest rate of {len(mine)} arms)" if len(shown) < len(mine) else ""
        found.append(Answer(text=f"Without an edit, on {name} instructions {said}{more}.", shown=True))
    return found


Contrast = tuple[str, bool, float]
"""The statement that is tested, whether the rates agree with it, and the p value."""


def _harmful_against_harmless(
    harmful: JudgedCell, harmless: JudgedCell, cells: Sequence[JudgedCell], verdicts: _Verdicts
) -> Contrast:
    target = target_text(harmful, cells)
    arm = f" by {target}" if len(prompts_of(harmful, cells)) > 1 else ""
    change = verdicts.of_harm(harmful, harmless)
    size = number_format.change(change.difference, change.interval(), change.n)
    twins = " than their harmless twins" if verdicts.matched else ""
    return f"harmful ones are refused more often{twins}{arm}, {size}", change.difference > 0, change.p_value


def _last_against_first(unedited: Sequence[JudgedCell], cells: Sequence[JudgedCell], verdicts: _Verdicts) -> list[Contrast]:
    """Tests the last checkpoint against the first under each prompt that both have. If there is none, tests their first arms."""
    first, last = ({cell.prompt: cell for cell in unedited if cell.target == each.target} for each in (unedited[0], unedited[-1]))
    pairs = [(first[prompt], last[prompt]) for prompt in first if prompt in last]
    found = []
    for one, other in pairs or [(next(iter(first.values())), next(iter(last.values())))]:
        change = verdicts.change(one, other)
        if change is None:
            continue  # an unfinished run
        size = number_format.more_or_fewer(change.difference, change.interval(), change.n)
        against = f"{target_text(other, cells)} refuses {size} of the harmful ones than {target_text(one, cells)}"
        against = against if pairs else f"{against}, each under its own prompt"
        found.append((against, change.difference != 0, change.p_value))
    return found


def _not_tried(words: EditWords) -> Answer:
    text = f"The effect of {edit_text(words, 'a')} is not shown: this run has no completions with such an edit."
    return Answer(text=text, shown=False)


def _of_action(words: EditWords, tests: Sequence[EditTest], cells: Sequence[JudgedCell]) -> list[Answer]:
    """One sentence for each instruction set on which the action was tried and a change is expected."""
    mine = [test for test in tests if test.cell.action == words.action]
    labels = dict.fromkeys(test.cell.instructions for test in mine)
    return [_moved(words, [test for test in mine if test.cell.instructions == label], cells) for label in labels]


def _moved(words: EditWords, every: Sequence[EditTest], cells: Sequence[JudgedCell]) -> Answer:
    """The effect of directions of other checkpoints, or of checkpoints' own directions if there are no others."""
    across = [test for test in every if test.cell.source != test.cell.target] or list(every)
    across.sort(key=lambda test: -abs(test.comparison.difference))
    shown, rest = [test for test in across if test.shown], [test for test in across if not test.shown]
    own = all(test.cell.source == test.cell.target for test in across)
    edit = edit_text(words, "a checkpoint's own" if own else "another checkpoint's")
    label, sense = across[0].cell.instructions, "raises" if across[0].cell.expected > 0 else "lowers"
    does = f"{sense} refusals of {label} instructions"
    others = "; ".join(
        f"{_owner_and_target(test, words, every, cells)} "
        f"({change_text(test.comparison)}{', ' if test.because else ''}{test.because})"
        for test in rest[:NAMED]
    )
    others += f"; and {len(rest) - NAMED} more" if len(rest) > NAMED else ""
    if not shown:
        stated = _cells_of(rest[0], every)
        return Answer(text=f"It is not shown that {edit} {does}: {others}.", shown=False, cells=stated)
    best = shown[0]
    text = (
        f"{capitalised(words.doing)} {_owner_and_target(best, words, every, cells)} changes the refusal rate on {label} "
        f"instructions {change_text(best.comparison)} ({_support(best, words, every, cells)})"
    )
    if len(across) > 2:
        text = f"{capitalised(edit)} {does} in {len(shown)} of {len(across)} cells; largest change: {uncapitalised(text)}"
    if rest and len(across) <= 2:
        text += f"; not shown for {others}"
    elif rest:
        text += f"; not shown in the other {len(rest)}, such as {others.split('; ')[0]}"
    return Answer(text=f"{text}.", shown=True, cells=_cells_of(best, every))


def _owner_and_target(test: EditTest, words: EditWords, every: Sequence[EditTest], cells: Sequence[JudgedCell]) -> str:
    """The direction, its checkpoint and the target; also the layer, prompt and coefficient if `every` has several."""
    cell, alike = test.cell, [other.cell for other in every]
    facts = []
    if cell.layer is not None and len({other.layer for other in alike}) > 1:
        facts.append(f"layer {cell.layer}")
    facts += [drawn_text(cell)] if drawn_text(cell) else []
    if len({dose_text(other) for other in alike}) > 1:
        facts.append(dose_text(cell))
    facts += where_it_acts(cell, alike, words)
    more, place = f" ({', '.join(facts)})" if facts else "", f"{words.into} {target_text(cell, cells)}"
    return f"{source_text(cell)}'s {words.noun}{more} {place}" if words.noun else f"{place}{more}"


def _support(test: EditTest, words: EditWords, every: Sequence[EditTest], cells: Sequence[JudgedCell]) -> str:
    """The p value, the rate under the target's own direction, and what null directions at the same setting do."""
    own = _own(test, every)
    facts = [_p(test.p_change, "Holm")]
    facts += [f"{target_text(other.cell, cells)}'s own {words.noun} gives {rate_text(other.cell)}" for other in own[:1]]
    facts += [null_text(null, test.comparison.n, words.noun) for null in test.against]
    return "; ".join(facts)


def _own(test: EditTest, every: Sequence[EditTest]) -> list[EditTest]:
    """The same edit with the target's own direction."""
    return [other for other in every if other is not test and is_own(other.cell) and same_setting(other.cell, test.cell)]


def _cells_of(test: EditTest, every: Sequence[EditTest]) -> tuple[str, ...]:
    """The cells whose rates a sentence about an edit states."""
    own = [other.cell.key for other in _own(test, every)[:1]]
    return (test.baseline.key, test.cell.key, *own, *(null.key for null in test.nulls))


def _p(p: float, how: str = "") -> str:
    return f"{number_format.p_in_words(p)}, {how}" if how else number_format.p_in_words(p)


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
