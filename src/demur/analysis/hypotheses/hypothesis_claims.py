"""Verdicts on the hypotheses of a study. They are the study's confirmatory claims; pure functions of typed records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from demur.analysis.cell import Claim, Family, JudgedCell
from demur.analysis.cell_phrases import Words, uncapitalised
from demur.analysis.edit_tests import EditTest
from demur.analysis.hypotheses.corrections import Corrected, corrected
from demur.analysis.hypotheses.evidence import beside, of_cosines, which_setting
from demur.analysis.hypotheses.harm_contrast import HarmContrast, harm_contrast
from demur.analysis.hypotheses.hypothesis import DirectionActs, Hypothesis, MechanismsShared, RefusesHarmful
from demur.analysis.hypotheses.hypothesis_trials import ContrastTrial, EditTrial, Ruling, Trial, Verdict
from demur.analysis.hypotheses.post_hypotheses import HYPOTHESES, Lineage, Transfer
from demur.analysis.hypotheses.transfers_tried import deciding, transfers
from demur.analysis.rates import Groups, Refusals
from demur.core.statistics import LEVEL

Cosines = Mapping[frozenset[str], Sequence[str]]
"""Two checkpoints -> sentences about the cosines of their directions."""


@dataclass(frozen=True)
class Sets:
    """What is known of the instruction sets.

    Attributes:
        groups: groups of near-duplicate instructions; None if all are independent.
        matched: whether each harmless instruction is the twin of the harmful one at the same position.
    """

    groups: Groups | None = None
    matched: bool = False


@dataclass(frozen=True)
class Tested:
    """What came out.

    Attributes:
        claims: a claim for each hypothesis, in the order of the list of hypotheses.
        tests: the tests of the edits, with p values corrected together with the hypotheses.
    """

    claims: tuple[Claim, ...]
    tests: tuple[EditTest, ...]


def hypothesis_claims(
    lineage: Lineage,
    cells: Sequence[JudgedCell],
    tests: Sequence[EditTest],
    refusals: Refusals,
    judge: str,
    words: Words,
    sets: Sets | None = None,
    cosines: Cosines | None = None,
) -> Tested:
    """Tests every hypothesis that the cells allow.

    Args:
        lineage: the checkpoints with their roles.
        cells: the judged cells of a run.
        tests: the tests of the edits from which a change is expected.
        refusals: the verdicts from which both were computed.
        judge: the judge whose verdicts count.
        words: the words for each action of the run's edits.
        sets: what is known of the instruction sets; None for independent instructions without twins.
        cosines: sentences about the cosines of the directions of two checkpoints, by their names.

    Returns:
        The claims and the corrected tests.
    """
    by_key = {test.cell.key: test for test in tests}
    tried = transfers([test.cell for test in tests])
    hypotheses = [each for make in HYPOTHESES for each in make(lineage, tried)]
    contrasts = _contrasts([cell for cell in cells if cell.judge == judge], refusals, sets or Sets())
    trials = {each.id: found for each in hypotheses if (found := _trials(each, tried, by_key, contrasts))}
    families = {name: _family(mine) for name, mine in trials.items()}
    p_values, tests = _corrections(trials, families, tests)
    by_key = {test.cell.key: test for test in tests}
    claims: dict[str, Claim] = {}
    for each in hypotheses:
        if isinstance(each, MechanismsShared):
            claims[each.id] = _of_parts(each, claims, cosines or {})
        elif each.id in trials:
            claim = _of_trials(each, trials[each.id], p_values[each.id])
            more = _evidence(each, trials[each.id], claim, tried, by_key, words)
            claims[each.id] = claim.model_copy(update={"family": families[each.id], "evidence": more})
        else:
            claims[each.id] = _not_tested(each)
    return Tested(tuple(claims.values()), tuple(tests))


def _contrasts(cells: Sequence[JudgedCell], refusals: Refusals, sets: Sets) -> dict[str, list[HarmContrast]]:
    """Harmful against harmless instructions in each arm, by checkpoint."""
    harmless = {cell.arm: cell for cell in cells if not cell.edited and cell.instructions == "harmless"}
    found: dict[str, list[HarmContrast]] = {}
    for cell in cells:
        if not cell.edited and cell.instructions == "harmful" and cell.arm in harmless:
            contrast = harm_contrast(cell, harmless[cell.arm], refusals, groups=sets.groups, matched=sets.matched)
            found.setdefault(cell.target, []).append(contrast)
    return found


def _trials(
    hypothesis: Hypothesis,
    tried: Mapping[Transfer, list[JudgedCell]],
    tests: Mapping[str, EditTest],
    contrasts: Mapping[str, list[HarmContrast]],
) -> list[Trial]:
    """The trials of a hypothesis. Of the edits, those that the study names as its claims count before others."""
    if isinstance(hypothesis, RefusesHarmful):
        return [ContrastTrial(contrast) for contrast in contrasts.get(hypothesis.checkpoint or "", ())]
    if isinstance(hypothesis, DirectionActs):
        there = tried.get((hypothesis.source, hypothesis.target, hypothesis.effect))
        found = [tests[cell.key] for cell in deciding(there)] if there else []
        claimed = [test for test in found if test.comparison.family == "confirmatory"]
        return [EditTrial(test) for test in claimed or found]
    return []


def _family(trials: Sequence[Trial]) -> Family:
    first = trials[0]
    return first.test.comparison.family if isinstance(first, EditTrial) else "confirmatory"


def _corrections(
    trials: Mapping[str, Sequence[Trial]], families: Mapping[str, Family], tests: Sequence[EditTest]
) -> tuple[dict[str, Corrected], list[EditTest]]:
    """The p values of the hypotheses, and all tests with p values that are corrected in the same families."""
    theirs = {trial.test.cell.key for mine in trials.values() for trial in mine if isinstance(trial, EditTrial)}
    found: dict[str, Corrected] = {}
    p_values: dict[str, tuple[float, int]] = {}
    for family in dict.fromkeys((*families.values(), *(test.comparison.family for test in tests))):
        members = {name: mine for name, mine in trials.items() if families[name] == family}
        alone = [test for test in tests if test.comparison.family == family and test.cell.key not in theirs]
        members |= {f"effect: {test.cell.key}": (EditTrial(test),) for test in alone}
        for (name, mine), result in zip(members.items(), corrected(list(members.values())), strict=True):
            found[name] = result
            for trial, p in zip(mine, result.p_trials, strict=True):
                if isinstance(trial, EditTrial):
                    p_values[trial.test.cell.key] = p, result.family
    return found, [replace(test, p=p_values[test.cell.key][0], claims=p_values[test.cell.key][1]) for test in tests]


def _of_trials(hypothesis: RefusesHarmful | DirectionActs, trials: Sequence[Trial], p_values: Corrected) -> Claim:
    ruling = Ruling("not shown", p_values.p, p_values.family)
    strongest = min(trials, key=lambda trial: trial.p_alone)
    sound = [(p, trial) for p, trial in zip(p_values.p_trials, trials, strict=True) if p < LEVEL and not trial.held_back]
    if sound:
        p, strongest = min(sound, key=lambda each: (each[0], each[1].p_alone))
        ruling = replace(ruling, verdict="supported", p=p)
    elif p_values.p < LEVEL:
        pass  # the text of every significant trial is broken
    elif p_values.p_opposite < LEVEL:
        ruling = replace(ruling, verdict="contradicted", p=p_values.p_opposite, against="opposite change")
    elif p_values.p_no_effect < LEVEL:
        ruling = replace(ruling, verdict="contradicted", p=p_values.p_no_effect, against="no effect beyond delta")
    return strongest.claim(hypothesis, ruling).model_copy(update={"settings": len(trials)})


def _evidence(
    hypothesis: Hypothesis,
    trials: Sequence[Trial],
    claim: Claim,
    tried: Mapping[Transfer, list[JudgedCell]],
    tests: Mapping[str, EditTest],
    words: Words,
) -> tuple[str, ...]:
    """Which setting the numbers are from, and what was tried beside it."""
    found = which_setting(claim, [trial.test.cell for trial in trials if isinstance(trial, EditTrial)], words)
    if isinstance(hypothesis, DirectionActs):
        mine = {trial.test.cell.key for trial in trials if isinstance(trial, EditTrial)}
        there = tried[hypothesis.source, hypothesis.target, hypothesis.effect]
        found += beside([tests[cell.key] for cell in there if cell.key not in mine], words)
    return tuple(found)


def _of_parts(hypothesis: MechanismsShared, claims: Mapping[str, Claim], cosines: Cosines) -> Claim:
    """The claim that holds if all its parts hold.

    Its p value needs no correction of its own: to be shown by mistake, a part would have to be shown by mistake.
    """
    known = [[claims[part] for part in way if part in claims and claims[part].verdict != "not tested"] for way in hypothesis.ways]
    parts = [claim for way in known for claim in way]
    if not known or not all(known):
        return _not_tested(hypothesis).model_copy(update={"parts": tuple(claim.id for claim in parts)})
    refuted = [claim for claim in parts if claim.verdict == "contradicted"]
    verdict: Verdict = "contradicted" if refuted else "supported" if all(claim.shown for claim in parts) else "not shown"
    weakest = min(refuted, key=_p) if refuted else max(parts, key=lambda claim: (not claim.shown, _p(claim)))
    not_so = "it does not hold that" if refuted else "it is not shown that"
    because = "" if weakest.shown else f"{not_so} {uncapitalised(weakest.text).removesuffix('.')}: {weakest.because}"
    family: Family = "confirmatory" if all(claim.family == "confirmatory" for claim in parts) else "exploratory"
    evidence = of_cosines(cosines.get(frozenset(hypothesis.checkpoints or ()), ()))
    return weakest.model_copy(
        update={
            "id": hypothesis.id,
            "text": hypothesis.text,
            "short": hypothesis.short,
            "shown": verdict == "supported",
            "verdict": verdict,
            "family": family,
            "reason": "" if verdict == "supported" else weakest.reason if refuted else "a part is not shown",
            "because": because,
            "parts": tuple(claim.id for claim in parts),
            "evidence": tuple(evidence),
            "settings": 1,
        }
    )


def _p(claim: Claim) -> float:
    return 1.0 if claim.p is None else claim.p


def _not_tested(hypothesis: Hypothesis) -> Claim:
    return Claim(
        id=hypothesis.id,
        about="hypothesis",
        text=hypothesis.text,
        short=hypothesis.short,
        shown=False,
        verdict="not tested",
        family="confirmatory",
        reason="no such cell",
        because=hypothesis.missing,
    )
