"""Trials of a hypothesis: one for each setting in which it was tested. A trial has the p values and tells its numbers."""

from dataclasses import dataclass, replace
from typing import Literal, Protocol

from demur.analysis.cell import Claim, Reason
from demur.analysis.edit_tests import EditTest
from demur.analysis.hypotheses.harm_contrast import HarmContrast
from demur.analysis.hypotheses.hypothesis import Hypothesis
from demur.core import number_format
from demur.core.effects.paired_change import DELTA
from demur.core.statistics import LEVEL

Verdict = Literal["supported", "contradicted", "not shown", "not tested"]


@dataclass(frozen=True)
class Ruling:
    """What was decided about a hypothesis.

    Attributes:
        verdict: the verdict.
        p: the p value that decided, after correction.
        family: the number of claims in its family.
        against: what contradicts the hypothesis; empty if nothing does.
    """

    verdict: Verdict
    p: float
    family: int
    against: Literal["", "opposite change", "no effect beyond delta"] = ""


class Trial(Protocol):
    """One setting in which a hypothesis was tested. Its p values have no correction."""

    @property
    def p_alone(self) -> float:
        """P value of "there is no such effect"; 1 if the change has the other sign."""
        ...

    @property
    def p_opposite(self) -> float:
        """P value of the change if it has the other sign; 1 if it has not."""
        ...

    @property
    def p_no_effect(self) -> float:
        """P value of "the change is delta or more"; 1 if there was no room for such a change."""
        ...

    @property
    def could_be_shown(self) -> bool:
        """Whether any result could have shown the effect."""
        ...

    @property
    def held_back(self) -> bool:
        """Whether it shows nothing, however small its p value is, because the completions are no text any more."""
        ...

    def claim(self, hypothesis: Hypothesis, ruling: Ruling) -> Claim:
        """The claim with the numbers of this trial.

        Args:
            hypothesis: the hypothesis.
            ruling: what was decided about it.
        """
        ...


@dataclass(frozen=True)
class EditTrial:
    """An edit on the instructions on which a change is expected."""

    test: EditTest

    @property
    def p_alone(self) -> float:
        """The larger of the p values of the change and against null directions."""
        return self.test.p_alone

    @property
    def p_opposite(self) -> float:
        """The p value of a change with the other sign."""
        row = self.test.comparison
        return row.p_value if row.difference * self.test.cell.expected < 0 else 1.0

    @property
    def p_no_effect(self) -> float:
        """Two one-sided tests, if the rate without the edit leaves room for a change of delta."""
        before = self.test.comparison.baseline_rate
        room = before if self.test.cell.expected < 0 else 1 - before
        return self.test.p_no_effect if room >= DELTA else 1.0

    @property
    def could_be_shown(self) -> bool:
        """Whether enough verdicts can change, and there are enough null directions."""
        return self.test.could_be_shown

    @property
    def held_back(self) -> bool:
        """Whether refusals are lost because the text is broken."""
        return self.test.broken_loss

    def claim(self, hypothesis: Hypothesis, ruling: Ruling) -> Claim:
        """The claim with the numbers of this edit; see `Trial.claim`."""
        test = replace(self.test, p=ruling.p, claims=ruling.family)
        row = test.comparison
        reason, because = _why_not(ruling, test.reason, test.because)
        return Claim(
            id=hypothesis.id,
            about="hypothesis",
            text=hypothesis.text,
            short=hypothesis.short,
            shown=ruling.verdict == "supported",
            verdict=ruling.verdict,
            effect=row.difference,
            n=row.n,
            rates=(row.baseline_rate, row.rate),
            ci95=row.ci95,
            p=ruling.p,
            null=test.deciding,
            cells=(test.baseline.key, test.cell.key, *(null.key for null in test.nulls)),
            family=row.family,
            p_change=test.p_change,
            nulls=test.against,
            reason=reason,
            because=because,
            delta=DELTA,
            p_no_effect=test.p_no_effect if reason else None,
            least_detectable=test.least_detectable if reason else None,
            least_p=test.least_p if reason else None,
        )


@dataclass(frozen=True)
class ContrastTrial:
    """One arm on harmful against harmless instructions. There are no null directions, because there is no edit."""

    contrast: HarmContrast

    @property
    def p_alone(self) -> float:
        """The two-sided p value, if harmful instructions are refused more often."""
        change = self.contrast.change
        return change.p_value if change.difference > 0 else 1.0

    @property
    def p_opposite(self) -> float:
        """The two-sided p value, if harmless instructions are refused more often."""
        change = self.contrast.change
        return change.p_value if change.difference < 0 else 1.0

    @property
    def p_no_effect(self) -> float:
        """Two one-sided tests, if the rate on harmless instructions leaves room for a difference of delta."""
        return self.contrast.change.p_no_effect() if 1 - self.contrast.harmless.rate >= DELTA else 1.0

    @property
    def could_be_shown(self) -> bool:
        """Whether there are enough instructions."""
        return self.contrast.could_be_shown

    @property
    def held_back(self) -> bool:
        """Never: nothing is edited."""
        return False

    def claim(self, hypothesis: Hypothesis, ruling: Ruling) -> Claim:
        """The claim with the numbers of this arm; see `Trial.claim`."""
        change = self.contrast.change
        reason, because = _why_not(ruling, *self._reason(ruling), what="the difference")
        return Claim(
            id=hypothesis.id,
            about="hypothesis",
            text=hypothesis.text,
            short=hypothesis.short,
            shown=ruling.verdict == "supported",
            verdict=ruling.verdict,
            effect=change.difference,
            n=change.n,
            rates=(self.contrast.harmless.rate, self.contrast.harmful.rate),
            ci95=change.interval(),
            p=ruling.p,
            cells=(self.contrast.harmless.key, self.contrast.harmful.key),
            family="confirmatory",
            p_change=change.p_value,
            reason=reason,
            because=because,
            delta=DELTA,
            p_no_effect=change.p_no_effect() if reason else None,
        )

    def _reason(self, ruling: Ruling) -> tuple[Reason, str]:
        change = self.contrast.change
        if not self.could_be_shown:
            what = "instructions" if change.groups is None else "groups of near-duplicate instructions"
            return "could not be shown", f"it could not be shown with so few {what}"
        if change.p_value < LEVEL and change.difference > 0:
            p = number_format.p_in_words(ruling.p)
            return "inconclusive", f"it is not significant after Holm's correction for {ruling.family} claims ({p})"
        return "inconclusive", "this is inconclusive: the interval contains both no difference and a large one"


def _why_not(ruling: Ruling, reason: Reason, because: str, what: str = "the change") -> tuple[Reason, str]:
    """The reason of a verdict and its words, both empty for a supported hypothesis. Reason and words of the trial are given."""
    if ruling.verdict == "supported":
        return "", ""
    p = number_format.p_in_words(ruling.p)
    if ruling.against == "opposite change":
        return "opposite change", f"{what} has the other sign ({p})"
    if ruling.against == "no effect beyond delta":
        return "no effect beyond delta", f"{what} is smaller than {100 * DELTA:.0f} points ({p})"
    return reason or "inconclusive", because or "the change has the other sign here, but this is not significant in all settings"
