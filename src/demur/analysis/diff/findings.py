"""What fine-tuning changed, as an argument: questions, answers, and how sure each answer is."""

from collections.abc import Iterator, Sequence

from demur.analysis.cell_phrases import named
from demur.analysis.diff.attribution_results import attribution_findings
from demur.analysis.diff.carrier_findings import added_vector, few_components, single_branch, single_head
from demur.analysis.diff.diff_details import DiffDetails
from demur.analysis.diff.divergence_findings import divergence_findings
from demur.analysis.diff.feature_findings import feature_findings
from demur.analysis.diff.finding import Finding
from demur.analysis.diff.lens_results import lens_findings
from demur.analysis.diff.pair_results import HALF, PairCurve, PairResult, Transition, curves_by_kind
from demur.analysis.diff.recovery_words import (
    broken_text,
    carries,
    is_broken,
    most_at,
    near_none,
    place_of,
    points,
    recovered,
    recovery_of,
    share,
)
from demur.analysis.diff.upstream_late import UpstreamLate
from demur.analysis.diff.weight_findings import weight_findings


def findings(results: Sequence[PairResult], details: DiffDetails | None = None) -> list[Finding]:
    """The argument for each pair: do the checkpoints refuse differently, and where and in what does the difference lie.

    Args:
        results: refusals in runs of pairs.
        details: what else was measured of pairs.

    Returns:
        The steps, pair after pair, and then those of single arms.
    """
    details = details or DiffDetails()
    found = []
    for subject in dict.fromkeys((*(one.subject for one in results), *details.subjects)):
        mine = [one for one in results if one.subject == subject]
        found += [_difference(one) for one in mine[:1]]
        # In this order, whichever was measured first.
        for name, steps in _STEPS.items():
            found += [step for one in mine if one.measurement == name and one.differs for step in steps(one)]
        found += [step for one in details.attribution if one.subject == subject for step in attribution_findings(one)]
        found += [step for one in details.difference_lens if one.subject == subject for step in lens_findings(one)]
        found += [step for one in details.divergence if one.subject == subject for step in divergence_findings(one)]
    # These are of single arms, so they follow the pairs.
    return [*found, *(step for one in details.features for step in feature_findings(one))]


def _difference(one: PairResult) -> Finding:
    first, second = named(one.first), named(one.second)
    evidence = (
        f"mean probability of a refusal {share(one.first_rate)} in {first} and {share(one.second_rate)} in {second} "
        f"(difference {points(one.second_rate - one.first_rate)}, 95 % interval {points(one.difference_ci95[0])} to "
        f"{points(one.difference_ci95[1])}) on {one.n} harmful instructions under {one.prompt}"
    )
    if not one.differs:
        answer = f"Nothing is shown: {first} and {second} are not told apart by how often they refuse."
        return Finding(subject=one.subject, question=_REFUSE, answer=answer, evidence=evidence, shown=False)
    more = one.second if one.second_rate > one.first_rate else one.first
    other = one.first if more == one.second else one.second
    answer = f"Yes: {named(more)} refuses more than {named(other)}."
    return Finding(subject=one.subject, question=_REFUSE, answer=answer, evidence=evidence, shown=True)


_REFUSE = "Do the checkpoints refuse differently?"


def _patching(one: PairResult) -> Iterator[Finding]:
    for transition in one.transitions:
        curves = curves_by_kind(one, transition.source)
        yield _depth(one, transition, curves["stream"], curves.get("permuted"))
    if one.halves is not None:
        yield _both_halves(one, one.halves)
    if "along" in curves_by_kind(one, one.second):
        yield _along(one)
    yield from single_branch(one)
    yield from single_head(one)


def _depth(one: PairResult, transition: Transition, stream: PairCurve, null: PairCurve | None) -> Finding:
    question = f"By which layer does the stream of {named(transition.source)} hold what decides?"
    last, into = stream.runs[-1], named(transition.target)
    said_last = f"after the last measured layer {recovery_of(last)} is recovered"
    if transition.layer is None:
        answer = (
            f"No layer's stream carries half of the difference, so the rest lies after layer {place_of(last)}: in the final norm "
            "or the unembedding."
        )
        return Finding(
            subject=one.subject,
            question=question,
            answer=answer,
            evidence=f"patched into {into}, {said_last}",
            shown=near_none(last),
        )
    at = next(run for run in stream.runs if run.place == transition.layer)
    interval = "" if transition.ci95 is None else f" (95 % interval {transition.ci95[0]} to {transition.ci95[1]})"
    answer = f"By layer {transition.layer}{interval}: patched into {into}, half of the difference in refusals comes with it."
    shown = transition.ci95 is not None and carries(at, 0.0 if null is None else most_at(null, at))
    parts = [f"recovery {recovery_of(at)} at layer {transition.layer}; {said_last}"]
    if null is not None:
        beside = [run for run in null.runs if run.place == transition.layer and run.recovery is not None]
        parts += [f"a permuted difference of the same norm recovers {recovery_of(run)} there" for run in beside[:1]]
    if is_broken(at):
        parts.append(broken_text(at))
        shown = False
    return Finding(subject=one.subject, question=question, answer=answer, evidence="; ".join(parts), shown=shown)


def _both_halves(one: PairResult, found: UpstreamLate) -> Finding:
    first, second = named(one.first), named(one.second)
    question = "Do the later layers need the earlier ones?"
    shown = found.ci95[0] > 0 or found.ci95[1] < 0
    more = (found.interaction > 0) == (one.second_rate > one.first_rate)
    answer = (
        f"Yes: the layers after {found.layer} of {second} change refusals {'more' if more else 'less'} if the layers "
        f"before are also those of {second}."
        if shown
        else f"No interaction is shown between the layers up to {found.layer} and those after it."
    )
    evidence = (
        f"refusals {share(found.neither)} with both from {first}, {share(found.upstream)} with the layers up to "
        f"{found.layer} from {second}, {share(found.late)} with those after it, {share(found.both)} with both; interaction "
        f"{points(found.interaction)} ({points(found.ci95[0])} to {points(found.ci95[1])})"
    )
    return Finding(subject=one.subject, question=question, answer=answer, evidence=evidence, shown=shown)


def _along(one: PairResult) -> Finding:
    first, second = named(one.first), named(one.second)
    curves = curves_by_kind(one, one.second)
    best = max(curves["along"].runs, key=recovered)
    null = most_at(curves["random direction"], best)
    beats = best.recovery_ci95 is not None and best.recovery_ci95[0] > max(0.0, null)
    answer = (
        f"Up to {share(recovered(best))} of it: only the component of {second}'s stream along its own direction was put into "
        f"{first}."
        if beats
        else f"None of it is shown: the component along {second}'s direction recovers no more than a random one."
    )
    evidence = f"recovery {recovery_of(best)} at layer {place_of(best)}; along a random direction at most {share(null)} there"
    question = "How much of the difference is the direction?"
    return Finding(subject=one.subject, question=question, answer=answer, evidence=evidence, shown=beats)


def _amplification(one: PairResult) -> Iterator[Finding]:
    first, second = named(one.first), named(one.second)
    curves = {curve.kind: sorted(curve.runs, key=lambda run: run.place or 0.0) for curve in one.curves}
    mixture, nulls = curves["amplified"], {run.place: run for run in curves.get("permuted", [])}
    half = next((run for run in mixture if run.recovery is not None and run.recovery >= HALF), None)
    if half is not None and half.place is not None:
        between = [run for run in mixture if run.place is not None and run.place < half.place]
        since = f"between {between[-1].place:g} and {half.place:g}" if between else f"at {half.place:g}"
        yield Finding(
            subject=one.subject,
            question="How much of the difference in logits does it take?",
            answer=f"Half of the difference in refusals appears {since}, where -1 is {first} and 0 is {second}.",
            evidence=f"recovery {recovery_of(half)} with coefficient {half.place:g}",
            shown=True,
        )
    most, alone = mixture[-1], next(run for run in mixture if run.place == 0)
    null = nulls.get(most.place)
    if most.place is None or most.place <= 0 or most.recovery_ci95 is None or alone.recovery is None:
        return
    up = one.second_rate > one.first_rate
    grows = most.recovery_ci95[0] > 1
    beats = null is None or null.recovery is None or (most.recovery or 0.0) > null.recovery
    verb, how = ("refuse still more", "more") if up else ("refuse still less", "less")
    answer = f"Yes: with coefficient {most.place:g} it would {verb}." if grows else f"No: it would not refuse {how} than now."
    evidence = f"refusals {share(most.rate)} with coefficient {most.place:g}, {share(alone.rate)} in {second}"
    if null is not None:
        evidence += f", {share(null.rate)} with a permuted difference"
    if is_broken(most):
        evidence += f"; {broken_text(most)}"
    yield Finding(
        subject=one.subject,
        question=f"Would {second} go on in this direction if the difference were larger?",
        answer=answer,
        evidence=evidence,
        shown=grows and beats and not is_broken(most),
    )


_STEPS = {
    "patching": _patching,
    "weight-swaps": weight_findings,
    "amplification": _amplification,
    "attribution": few_components,
    "difference-lens": added_vector,
}
"""The steps that each measurement adds, in the order of the argument."""
