"""One sentence for each checkpoint and each edit of a run, with a verdict and the numbers that support it.

The verdict says whether the data show the effect. If a significant change does not count as shown, the sentence gives the reason.
Pure functions of typed records.
"""

from collections.abc import Sequence

from demur.analysis.cell import Cell, Claim, JudgedCell
from demur.analysis.cell_phrases import (
    Words,
    capitalised,
    change_text,
    dose_text,
    drawn_text,
    edit_text,
    is_own,
    moved_text,
    null_text,
    one_of_each_place,
    rate_text,
    source_text,
    target_text,
    where_it_acts,
)
from demur.analysis.edit_tests import EditTest
from demur.analysis.spreads.pairs_spread import PairsSpread, spread_text
from demur.core import number_format
from demur.core.edit_words import EditWords
from demur.core.effects.paired_change import DELTA


def claims(
    cells: Sequence[JudgedCell],
    tests: Sequence[EditTest],
    judge: str,
    words: Words,
    spreads: Sequence[PairsSpread] = (),
) -> list[Claim]:
    """The claims of one judge: how often each checkpoint refuses, and what each edit changes.

    A rate without an edit is only described: it counts as shown, and its verdict is `not tested`. An edit is `supported` if
    `EditTest.shown` is true, `contradicted` if `EditTest.contradicted` is true, and otherwise `not shown`, with the reason.

    Args:
        cells: the judged cells of a run.
        tests: the tests of the edits from which a change is expected.
        judge: the judge whose verdicts count.
        words: the words for each action of the run's edits.
        spreads: the edits with directions from resamples of the training pairs, if there are any.

    Returns:
        The claims that are shown, followed by the others. Both groups are in the order of the cells.
    """
    mine = [cell for cell in cells if cell.judge == judge]
    # A sentence needs only the cells of its target. Looking through all cells for each sentence would be quadratic.
    of_target: dict[str, list[JudgedCell]] = {}
    for cell in mine:
        of_target.setdefault(cell.target, []).append(cell)
    # A claim about harmful instructions has the rate on harmless ones in its text.
    found = [_rate_claim(cell, of_target[cell.target]) for cell in mine if not cell.edited and cell.instructions != "harmless"]
    spread_of = {one.key: one for one in spreads if one.judge == judge and one.outcome == "verdict"}
    alike = {kind: one_of_each_place(edited) for kind, edited in _by_kind([test.cell for test in tests]).items()}
    for test in tests:
        claim = _edit_claim(test, alike[test.cell.intervention], of_target[test.cell.target], words)
        found.append(_with_spread(claim, spread_of.get(test.cell.key)))
    return sorted(found, key=lambda claim: not claim.shown)


def _by_kind(cells: Sequence[JudgedCell]) -> dict[str, list[JudgedCell]]:
    found: dict[str, list[JudgedCell]] = {}
    for cell in cells:
        found.setdefault(cell.intervention, []).append(cell)
    return found


def _rate_claim(cell: JudgedCell, cells: Sequence[JudgedCell]) -> Claim:
    text = f"{target_text(cell, cells)} refuses {rate_text(cell)} of {cell.n} {cell.instructions} instructions"
    harmless = [other for other in cells if not other.edited and other.instructions == "harmless" and other.arm == cell.arm]
    twins = harmless[:1] if cell.instructions == "harmful" else []
    text += "".join(f" and {rate_text(twin)} of {twin.n} harmless ones" for twin in twins)
    keys = (cell.key, *(twin.key for twin in twins))
    return Claim(id=f"rate: {cell.key}", about="rate", text=f"{text}.", shown=True, verdict="not tested", cells=keys)


def _edit_claim(test: EditTest, alike: Sequence[Cell], cells: Sequence[JudgedCell], words: Words) -> Claim:
    cell, row, shown = test.cell, test.comparison, test.shown
    text = _sentence(test, alike, target_text(cell, cells), _signed_words(cell, words))
    text += f" {capitalised(test.because)}." if test.because else ""
    text += f" {capitalised(test.broken)}." if test.broken and test.because != test.broken else ""
    text += " Exploratory." if row.family == "exploratory" else ""
    expected = row.difference * cell.expected > 0
    return Claim(
        id=f"effect: {cell.key}",
        text=text,
        shown=shown,
        verdict="supported" if shown else "contradicted" if test.contradicted else "not shown",
        effect=row.difference,
        n=row.n,
        rates=(row.baseline_rate, row.rate),
        ci95=row.ci95,
        p=test.p if expected else test.p_change,
        null=test.deciding,
        cells=(test.baseline.key, cell.key, *(null.key for null in test.nulls)),
        family=row.family,
        p_change=test.p_change,
        nulls=test.against,
        reason=test.reason,
        because=test.because,
        delta=DELTA,
        p_no_effect=test.p_no_effect if test.reason else None,
        least_detectable=test.least_detectable if test.reason else None,
        least_p=test.least_p if test.reason else None,
    )


def _with_spread(claim: Claim, spread: PairsSpread | None) -> Claim:
    """The claim with what resamples of the training pairs do. They change no verdict: they are in no family of tests."""
    if spread is None:
        return claim
    text = f"{claim.text} {capitalised(spread_text(spread))}."
    return claim.model_copy(update={"text": text, "ci95_pairs": spread.ci95_pairs})


def _signed_words(cell: JudgedCell, words: Words) -> EditWords:
    if cell.coefficient is None:
        return words[cell.action]
    # The sentence gives the coefficient with its sign, so "a negative multiple of" would say it twice.
    return words.get(words[cell.action].kind, words[cell.action])


def _sentence(test: EditTest, alike: Sequence[Cell], target: str, words: EditWords) -> str:
    cell, row = test.cell, test.comparison
    whose = "its own" if is_own(cell) else f"{source_text(cell)}'s"
    layer = "" if cell.layer is None else f"layer {cell.layer}"
    read = (layer, moved_text(cell), drawn_text(cell))
    facts = ", ".join(fact for fact in (*read, *where_it_acts(cell, alike, words), dose_text(cell)) if fact)
    edit = f"{capitalised(edit_text(words, whose))}{f' ({facts})' if facts else ''} {words.into} {target}"
    nulls = (null_text(null, row.n, words.noun) for null in test.against)
    support = "; ".join((f"{number_format.p_in_words(test.p_change)}, Holm", *nulls))
    return f"{edit} changes the refusal rate on {cell.instructions} instructions {change_text(row)} ({support})."
