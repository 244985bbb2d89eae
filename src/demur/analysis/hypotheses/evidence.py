"""Sentences that stand beside a hypothesis and do not decide about it."""

from collections.abc import Sequence

from demur.analysis.cell import Cell, Claim
from demur.analysis.cell_phrases import Words, capitalised, change_text, dose_text, drawn_text, named, where_it_acts
from demur.analysis.edit_tests import EditTest
from demur.analysis.spreads.pairs_spread import PairsSpread, spread_text

_NAMED = 3
"""Up to this many further edits get a sentence each."""


def which_setting(claim: Claim, cells: Sequence[Cell], words: Words) -> list[str]:
    """Says which of several settings a hypothesis has its numbers from; nothing for one setting.

    Args:
        claim: the claim with the numbers of one setting.
        cells: the edited cells of all settings; none for a hypothesis about checkpoints without an edit.
        words: the words for each action of the run's edits.
    """
    if claim.settings < 2:
        return []
    chosen = next((cell for cell in cells if cell.key in claim.cells), None)
    facts = []
    if chosen is not None:
        facts = [f"layer {chosen.layer}"] if chosen.layer is not None else []
        facts += [f"prompt {named(chosen.prompt)}"] if len({cell.prompt for cell in cells}) > 1 else []
        facts += [fact for fact in (drawn_text(chosen), dose_text(chosen)) if fact]
        facts += where_it_acts(chosen, cells, words[chosen.action])
    which = f": {', '.join(facts)}" if facts else ""
    many = claim.settings
    return [f"It was tested in {many} settings. The numbers are those of the strongest one{which}; p is multiplied by {many}."]


def beside(tests: Sequence[EditTest], words: Words) -> list[str]:
    """Says what further edits of the same direction do; for many of them, how many and from where to where.

    Args:
        tests: the tests of the edits.
        words: the words for each action of the run's edits.
    """
    found = []
    for action in dict.fromkeys(test.cell.action for test in tests):
        mine = [test for test in tests if test.cell.action == action]
        doing = capitalised(words[action].doing)
        if len(mine) > _NAMED:
            ends = sorted(mine, key=lambda test: test.comparison.difference)
            reach = f"{change_text(ends[0].comparison)} and {change_text(ends[-1].comparison)}"
            shown = sum(test.shown for test in mine)
            found.append(
                f"{doing} the direction in {len(mine)} further settings changes the rate between {reach}; {shown} of these "
                "effects are shown. They are exploratory."
            )
            continue
        for test in mine:
            facts = ", ".join(fact for fact in (drawn_text(test.cell), dose_text(test.cell)) if fact)
            because = f", because {test.because}" if test.because else ""
            verdict = "shown" if test.shown else "contradicted" if test.contradicted else f"not shown{because}"
            where = f" ({facts})" if facts else ""
            found.append(
                f"{doing} the direction{where} changes the rate {change_text(test.comparison)}: {verdict}. This is exploratory."
            )
    return found


def with_spreads(claims: Sequence[Claim], spreads: Sequence[PairsSpread], judge: str) -> list[Claim]:
    """The claims with what resamples of the training pairs do to the edits that they rest on. They change no verdict.

    Args:
        claims: the claims about hypotheses.
        spreads: the edits with directions from resamples of the training pairs.
        judge: the judge whose verdicts count.
    """
    spread_of = {one.key: one for one in spreads if one.judge == judge and one.outcome == "verdict"}
    found = []
    for claim in claims:
        spread = next((spread_of[key] for key in claim.cells[1:2] if key in spread_of), None)
        more = () if spread is None else (f"{capitalised(spread_text(spread))}.",)
        interval = None if spread is None else spread.ci95_pairs
        found.append(claim.model_copy(update={"evidence": (*claim.evidence, *more), "ci95_pairs": interval}))
    return found


def of_cosines(sentences: Sequence[str]) -> list[str]:
    """What is known of the cosine of the two directions. Directions may agree without acting, so it decides nothing."""
    return [f"{sentence} A cosine is no part of this claim." for sentence in sentences]
