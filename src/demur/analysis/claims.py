"""One sentence for each checkpoint and each edit of a run, with a verdict and the numbers that support it.

The verdict says whether the data show the effect. If a significant change does not count as shown, the sentence gives the reason.
Pure functions of typed records.
"""

from collections.abc import Sequence

from demur.analysis.cell import Claim, Comparison, JudgedCell
from demur.analysis.cell_phrases import (
    Words,
    capitalised,
    dose_text,
    edit_text,
    is_own,
    rate_text,
    source_text,
    target_text,
    where_it_acts,
)
from demur.analysis.edit_tests import EditTest, edit_tests
from demur.analysis.rates import Refusals
from demur.core import number_format
from demur.core.edit_words import EditWords
from demur.core.effects.paired_scores import paired_interval
from demur.core.statistics import shared


def claims(
    cells: Sequence[JudgedCell], compared: Sequence[Comparison], refusals: Refusals, judge: str, words: Words
) -> list[Claim]:
    """The claims of one judge: how often each checkpoint refuses, and what each edit changes.

    A rate without an edit is only described: it counts as shown, and its verdict is `not tested`. An edit is `supported` if
    `EditTest.shown` is true, `contradicted` if `EditTest.contradicted` is true, and otherwise `not shown`.

    Args:
        cells: the judged cells of a run.
        compared: their comparisons with the unedited targets.
        refusals: the verdicts from which both were computed.
        judge: the judge whose verdicts count.
        words: the words for each action of the run's edits.

    Returns:
        The claims that are shown, followed by the others. Both groups are in the order of the cells.
    """
    mine = [cell for cell in cells if cell.judge == judge]
    # A claim about harmful instructions has the rate on harmless ones in its text.
    found = [_rate_claim(cell, mine) for cell in mine if not cell.edited and cell.instructions != "harmless"]
    tests = edit_tests(cells, compared, refusals, judge)
    for test in tests:
        alike = [other.cell for other in tests if other.cell.intervention == test.cell.intervention]
        found.append(_edit_claim(test, alike, mine, refusals, words))
    return sorted(found, key=lambda claim: not claim.shown)


def _rate_claim(cell: JudgedCell, cells: Sequence[JudgedCell]) -> Claim:
    text = f"{target_text(cell, cells)} refuses {rate_text(cell)} of {cell.n} {cell.instructions} instructions"
    harmless = [other for other in cells if not other.edited and other.instructions == "harmless" and other.arm == cell.arm]
    twins = harmless[:1] if cell.instructions == "harmful" else []
    text += "".join(f" and {rate_text(twin)} of {twin.n} harmless ones" for twin in twins)
    keys = (cell.key, *(twin.key for twin in twins))
    return Claim(id=f"rate: {cell.key}", text=f"{text}.", shown=True, verdict="not tested", cells=keys)


def _edit_claim(
    test: EditTest, alike: Sequence[JudgedCell], cells: Sequence[JudgedCell], refusals: Refusals, words: Words
) -> Claim:
    cell, row = test.cell, test.comparison
    before, after = shared(refusals[test.baseline.key, cell.judge], refusals[cell.key, cell.judge])
    both = sum(one and other for one, other in zip(before, after, strict=True))
    doubt = f" {capitalised(test.doubt)}." if test.doubt else ""
    return Claim(
        id=f"effect: {cell.key}",
        text=_sentence(test, alike, target_text(cell, cells), _signed_words(cell, words)) + doubt,
        shown=test.shown,
        verdict="supported" if test.shown else "contradicted" if test.contradicted else "not shown",
        effect=row.difference,
        ci95=paired_interval(both, row.gained, row.lost, row.n - both - row.gained - row.lost),
        p=row.p_holm,
        null=test.null,
        cells=(test.baseline.key, cell.key, *(null.key for null in test.nulls)),
    )


def _signed_words(cell: JudgedCell, words: Words) -> EditWords:
    # The sentence gives the coefficient with its sign, so "a negative multiple of" would say it twice.
    return words.get(words[cell.action].kind, words[cell.action])


def _sentence(test: EditTest, alike: Sequence[JudgedCell], target: str, words: EditWords) -> str:
    cell, row = test.cell, test.comparison
    whose = "its own" if is_own(cell) else f"{source_text(cell)}'s"
    layer = "" if cell.layer is None else f"layer {cell.layer}"
    facts = ", ".join(fact for fact in (layer, *where_it_acts(cell, alike, words), dose_text(cell)) if fact)
    edit = f"{capitalised(edit_text(words, whose))}{f' ({facts})' if facts else ''} {words.into} {target}"
    change = f"from {number_format.percent(row.baseline_rate, row.n)} to {rate_text(cell)}"
    nulls = ", ".join(number_format.percent(null.rate, null.n) for null in test.nulls)
    against = f"; null directions with the same settings give {nulls}" if nulls else ""
    p = number_format.p_in_words(row.p_holm)
    return f"{edit} changes the refusal rate on {cell.instructions} instructions {change} ({p}, Holm{against})."
