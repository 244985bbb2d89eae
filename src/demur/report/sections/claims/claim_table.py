"""The verdicts on the hypotheses of a run, as the table `claims`. The page shows them as a list, at its top."""

from collections.abc import Sequence
from typing import ClassVar

from demur.analysis.cell import Claim
from demur.core import number_format
from demur.report.figure_spec import FigureSpec, TableSpec
from demur.report.outcomes.hypothesis_rows import ORDER, hypotheses_of, null_words
from demur.report.sections.section import ReportView


class ClaimTable:
    """The table `claims`."""

    part: ClassVar[str] = "answer"

    def figures(self, view: ReportView) -> Sequence[FigureSpec]:  # noqa: ARG002
        """No figures."""
        return []

    def tables(self, view: ReportView) -> Sequence[TableSpec]:
        """One row for each hypothesis; none for a run of an earlier version."""
        import pandas

        found = sorted(hypotheses_of(view.summary), key=lambda claim: ORDER.index(claim.verdict))
        if not found:
            return []
        caption = f"Claims of the post and what this run says of them; judge {view.judge}; p with Holm's correction"
        readable = pandas.DataFrame(list(map(_readable, found)))
        data = pandas.DataFrame(list(map(_data, found)))
        return [TableSpec("claims", caption, data, readable, frozenset({"Change", "95 %", "p"}), on_page=False)]


def _readable(claim: Claim) -> dict[str, str]:
    digits = number_format.decimals(claim.n or 0)
    return {
        "Verdict": claim.verdict,
        "Claim": claim.short,
        "Change": number_format.points(claim.effect, digits),
        "95 %": "" if claim.ci95 is None else f"[{', '.join(number_format.points(bound, digits) for bound in claim.ci95)}]",
        "p": number_format.p_value(claim.p),
        "Null directions": null_words(claim.null),
    }


def _data(claim: Claim) -> dict[str, object]:
    first, second = claim.rates or (None, None)
    low, high = claim.ci95 or (None, None)
    null = claim.null
    return {
        "id": claim.id,
        "verdict": claim.verdict,
        "text": claim.text,
        "n": claim.n,
        "rate before": first,
        "rate after": second,
        "effect": claim.effect,
        "ci95 low": low,
        "ci95 high": high,
        "p": claim.p,
        "null kind": None if null is None else null.kind,
        "null n": None if null is None else null.n,
        "null place": None if null is None else null.place,
        "null p": None if null is None else null.p,
        "reason": claim.reason,
    }
