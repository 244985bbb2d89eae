"""The hypotheses of a run as rows of text, for the page, the terminal and the tables."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from demur.analysis.cell import Claim, Null
from demur.analysis.cell_phrases import capitalised
from demur.analysis.summary import Summary
from demur.core import number_format
from demur.report.cell_view import Entry
from demur.report.sections.page_address import cell_address

ORDER = ("supported", "contradicted", "not shown", "not tested")
"""The verdicts in the order of a report."""

MOST_ROWS = 120
"""The most hypotheses on a page. Of more, the same number of each verdict is shown; the table `claims` has all of them."""


@dataclass(frozen=True)
class StatedCell:
    """A cell from which a hypothesis was tested.

    Attributes:
        label: what the cell is.
        rate: its rate with its interval.
        address: the address on the page that shows its completions.
    """

    label: str
    rate: str
    address: str


@dataclass(frozen=True)
class HypothesisRow:
    """One hypothesis with its verdict.

    Attributes:
        claim: the claim.
        found: what was found, in one line: the change with its interval, and why the claim is not supported or else p and nulls.
        details: sentences that the page shows when a reader opens the row.
        cells: the cells from which it was tested.
    """

    claim: Claim
    found: str
    details: tuple[str, ...]
    cells: tuple[StatedCell, ...]

    @property
    def tested(self) -> bool:
        """Whether the run has what the claim speaks of."""
        return self.claim.verdict != "not tested"

    @property
    def style(self) -> str:
        """The verdict as a name for a style."""
        return self.claim.verdict.replace(" ", "-")


def hypothesis_rows(summary: Summary, entries: Sequence[Entry]) -> list[HypothesisRow]:
    """The rows of a run's hypotheses.

    Args:
        summary: the run's summary.
        entries: its cells under the judge that the claims are about.

    Returns:
        One row for each hypothesis, or for `MOST_ROWS` of them: supported ones first, then contradicted ones, those that are not
        shown, and those that were not tested; otherwise in the order of the list of hypotheses. None for a run of an earlier
        version.
    """
    by_key = {entry.key: entry for entry in entries}
    every = hypotheses_of(summary)
    names = {claim.id: claim.short for claim in every}
    return [_row(claim, by_key, names) for claim in _shown(every)]


def hypotheses_left_out(summary: Summary) -> str:
    """How many hypotheses of each verdict `hypothesis_rows` leaves out, in words; empty if none."""
    every = hypotheses_of(summary)
    shown = {claim.id for claim in _shown(every)}
    counts: Counter[str] = Counter(claim.verdict for claim in every if claim.id not in shown)
    return ", ".join(f"{counts[verdict]:,} {verdict}" for verdict in ORDER if counts[verdict])


def _shown(every: Sequence[Claim]) -> list[Claim]:
    """The hypotheses that the page shows, in its order: of many, the first ones of each verdict."""
    found = sorted(every, key=lambda claim: ORDER.index(claim.verdict))
    if len(found) <= MOST_ROWS:
        return found
    by_verdict = {verdict: [claim for claim in found if claim.verdict == verdict] for verdict in ORDER}
    share = MOST_ROWS // sum(map(bool, by_verdict.values()))
    return [claim for claims in by_verdict.values() for claim in claims[:share]]


def hypotheses_of(summary: Summary) -> list[Claim]:
    """The claims of a run that are verdicts on named hypotheses."""
    return [claim for claim in summary.claims if claim.about == "hypothesis"]


def _found(claim: Claim, *, edited: bool) -> str:
    """What was found, in one line."""
    parts = []
    if claim.effect is not None and claim.ci95 is not None and claim.rates is not None and claim.n is not None:
        first, second = (number_format.percent(rate, claim.n) for rate in claim.rates)
        rates = f"from {first} to {second}" if edited else f"{first} of harmless and {second} of harmful instructions"
        parts.append(f"{rates}, {number_format.change(claim.effect, claim.ci95, claim.n)}")
    if claim.because:
        return ": ".join((*parts, claim.because)) + "."
    if claim.p is not None:
        parts.append(number_format.p_in_words(claim.p))
    return "; ".join((*parts, *filter(None, (null_words(claim.null),)))) + "."


def null_words(null: Null | None) -> str:
    """How many null directions of the kind that decides do as much; empty if there are none."""
    if null is None:
        return ""
    p = "" if null.p is None else f" ({number_format.p_in_words(null.p)})"
    return f"{null.place} of {null.n} {null.kind} directions do as much{p}"


def _row(claim: Claim, by_key: Mapping[str, Entry], names: Mapping[str, str]) -> HypothesisRow:
    stated = [by_key[key] for key in claim.cells if key in by_key]
    cells = [StatedCell(_label(each), _rate(each), cell_address(each)) for each in stated]
    return HypothesisRow(
        claim=claim,
        found=capitalised(_found(claim, edited=any(each.edited for each in stated))),
        details=tuple(_details(claim, names)),
        cells=tuple(cells),
    )


def _details(claim: Claim, names: Mapping[str, str]) -> list[str]:
    found = []
    if claim.parts and claim.effect is not None:
        parts = "; ".join(names.get(part, part) for part in claim.parts)
        found.append(f"It holds only if all its parts hold: {parts}. The numbers are those of the part that decides.")
    if claim.p_change is not None and not claim.parts:
        found.append(f"The change alone has {number_format.p_in_words(claim.p_change)}, corrected for the other effects.")
    for null in claim.nulls:
        low, high = (number_format.percent(rate, claim.n or 100) for rate in null.reach or (0.0, 0.0))
        what = "mean probabilities of a refusal" if null.outcome == "probability" else "refusal rates"
        found.append(f"{capitalised(null_words(null))}; they give {what} of {low.removesuffix(' %')} to {high}.")
    if claim.family == "exploratory":
        found.append("The study does not name this among its claims, so it is exploratory.")
    if claim.least_detectable is not None and claim.reason == "inconclusive":
        least = number_format.points(claim.least_detectable, 0).removeprefix("+")
        found.append(f"As many instructions show a change of {least} points with a chance of 80 %.")
    return [*found, *claim.evidence]


def _label(entry: Entry) -> str:
    what = f"{entry.variant} {entry.done}" if entry.edited else entry.done
    return f"{entry.target}, {entry.instructions} instructions, {what}"


def _rate(entry: Entry) -> str:
    return f"{entry.refusals} of {entry.n} refused, {number_format.estimate(entry.rate, entry.interval, entry.n)}"
