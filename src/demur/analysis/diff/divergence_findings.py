"""The steps of the argument that rest on the divergence along responses."""

from collections.abc import Iterator

from demur.analysis.cell_phrases import named
from demur.analysis.diff.divergence_results import FIRST, Ablation, DivergenceCurve, DivergenceResult, Estimate
from demur.analysis.diff.finding import Finding

LABEL = "harmful"
"""The answers are about responses to these instructions; the evidence names the others too."""


def divergence_findings(one: DivergenceResult) -> Iterator[Finding]:
    """Where along a response both checkpoints differ most, and whether ablation brings the later one back.

    Args:
        one: the divergence of a pair.

    Yields:
        The steps.
    """
    plain = {
        (curve.instructions, curve.responses): curve for curve in one.curves if (curve.one, curve.other) == ("later", "earlier")
    }
    yield _along(one, plain[LABEL, one.second], list(plain.values()))
    if plain[LABEL, one.second].kl.mean == 0:
        return
    found = {(each.instructions, each.responses): each for each in one.ablations}
    if (LABEL, one.second) in found:
        yield _ablated(one, found[LABEL, one.second], list(found.values()))


def _along(one: DivergenceResult, curve: DivergenceCurve, others: list[DivergenceCurve]) -> Finding:
    question = "Where along a response do the checkpoints' next tokens differ most?"
    said = "; ".join(
        f"{each.instructions} instructions, responses of {each.responses}: {nats(each.beginning)} in the first {FIRST} tokens"
        + ("" if each.rest is None else f", {nats(each.rest)} after")
        for each in others
    )
    evidence = f"mean KL({named(one.second)} || {named(one.first)}) in nats per token; {said}; n = {curve.n}"
    shown, fall = False, curve.fall
    if all(each.kl.mean == 0 for each in others):
        answer = f"Nowhere: {named(one.first)} and {named(one.second)} have exactly the same next tokens."
    elif fall is None or curve.rest is None or fall.ci95 is None or fall.ci95[0] <= 0 <= fall.ci95[1]:
        answer = "No place stands out: the first tokens and the later ones are not told apart."
    else:
        shown = True
        high, low = (curve.beginning, curve.rest) if fall.mean > 0 else (curve.rest, curve.beginning)
        where = f"At its beginning: the first {FIRST} tokens" if fall.mean > 0 else f"Later: tokens after the first {FIRST}"
        times = "" if low.mean == 0 else f" {high.mean / low.mean:.1f} times"
        answer = f"{where} have{times} the divergence of the others." if times else f"{where} have all of the divergence."
    return Finding(subject=one.subject, question=question, answer=answer, evidence=evidence, shown=shown)


def _ablated(one: DivergenceResult, found: Ablation, others: list[Ablation]) -> Finding:
    question = f"Does ablating its direction bring {named(one.second)} back to {named(one.first)}?"
    said = "; ".join(
        f"{each.instructions} instructions, responses of {each.responses}: {each.before:.3g} as it is, {each.after:.3g} ablated, "
        f"{each.null:.3g} with a random direction, ablated minus random {signed(each.beyond_null)}, of the Jensen-Shannon "
        f"divergence {signed(each.js_beyond_null)}"
        for each in others
    )
    evidence = f"mean KL to {named(one.first)} in nats per token; {said}; n = {found.n}"
    share = abs(found.after - found.before) / found.before
    if found.sign < 0:
        nearer = found.after < found.before
        answer = (
            f"{'Mostly' if share >= 0.5 else 'In part'}: along its responses the divergence from {named(one.first)} falls by "
            f"{100 * share:.0f} %."
            if nearer
            else f"No: the divergence from {named(one.first)} rises, though less than with a random direction."
        )
    elif found.sign > 0:
        answer = f"No: it moves away from {named(one.first)}; along its responses the divergence rises by {100 * share:.0f} %."
        if found.after <= found.before:
            answer = f"No: a random direction brings it nearer to {named(one.first)}."
    else:
        answer = f"No: it is not shown to be nearer to {named(one.first)} than with a random direction ablated."
    return Finding(subject=one.subject, question=question, answer=answer, evidence=evidence, shown=found.sign != 0)


def nats(value: Estimate) -> str:
    """A mean with its interval."""
    return f"{value.mean:.3g}" + ("" if value.ci95 is None else f" ({value.ci95[0]:.3g} to {value.ci95[1]:.3g})")


def signed(value: Estimate) -> str:
    """A change with its interval."""
    return f"{value.mean:+.2g}" + ("" if value.ci95 is None else f" ({value.ci95[0]:+.2g} to {value.ci95[1]:+.2g})")
