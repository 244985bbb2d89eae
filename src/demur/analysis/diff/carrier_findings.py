"""The steps of the argument about single components and vectors that may carry the difference in refusals."""

from collections.abc import Iterator

from demur.analysis.cell_phrases import named
from demur.analysis.diff.finding import Finding
from demur.analysis.diff.pair_results import HALF, PairResult, curves_by_kind
from demur.analysis.diff.recovery_words import carries, head_words, most_at, place_of, recovered, recovery_of, share

MOST_HEADS = 4
"""Of more heads than this, the evidence names only those that recover most."""


def single_branch(one: PairResult) -> Iterator[Finding]:
    """Whether what one layer's attention or MLP adds to the stream carries the difference: runs of `patching`."""
    curves = curves_by_kind(one, one.second)
    kinds = {"attention": "attention added", "MLP": "mlp added"}
    runs = [(words, run) for words, kind in kinds.items() if kind in curves for run in curves[kind].runs]
    if not runs:
        return
    words, best = max(runs, key=lambda each: recovered(each[1]))
    null = most_at(curves[f"permuted {words.lower()}"], best)
    shown = carries(best, null)
    answer = (
        f"The {words} of layer {place_of(best)} alone brings {share(recovered(best))} of it into {named(one.first)}."
        if shown
        else f"None is shown to: the most is {share(recovered(best))}, by the {words} of layer {place_of(best)}."
    )
    evidence = f"recovery {recovery_of(best)}; a permuted difference of the same norm recovers {share(null)}"
    question = "Does what one layer's attention or MLP adds carry the difference?"
    yield Finding(subject=one.subject, question=question, answer=answer, evidence=evidence, shown=shown)


def single_head(one: PairResult) -> Iterator[Finding]:
    """Whether what one head adds to the stream carries the difference: runs of `patching` in which heads were asked for."""
    curves = curves_by_kind(one, one.second)
    runs = {kind: curve.runs[0] for kind, curve in curves.items() if kind.startswith("head ")}
    if not runs:
        return
    ordered = sorted(runs, key=lambda kind: -recovered(runs[kind]))
    best = runs[ordered[0]]
    null = most_at(curves[f"permuted {ordered[0]}"], best)
    shown = carries(best, null)
    answer = (
        f"{head_words(ordered[0]).capitalize()} alone brings {share(recovered(best))} of it into {named(one.first)}."
        if shown
        else f"None is shown to: of the {len(runs)} that were patched the most is {share(recovered(best))}, by "
        f"{head_words(ordered[0])}."
    )
    each = ", ".join(f"{head_words(kind)} {recovery_of(runs[kind])}" for kind in ordered[:MOST_HEADS])
    evidence = f"recovery {each}; a permuted difference of the same norm {share(null)}"
    question = "Does one head carry the difference?"
    yield Finding(subject=one.subject, question=question, answer=answer, evidence=evidence, shown=shown)


def added_vector(one: PairResult) -> Iterator[Finding]:
    """Whether subtracting the mean difference on unrelated text changes refusals back: runs of `difference-lens`."""
    question = f"Do refusals change back without what training added to the stream on unrelated text of {named(one.second)}?"
    curves = curves_by_kind(one, one.first)
    if "mean difference" not in curves:
        return
    best = max(curves["mean difference"].runs, key=recovered)
    null = most_at(curves["random shift"], best)
    shown = carries(best, null)
    answer = (
        f"Up to {share(recovered(best))} of the difference goes if the mean difference is subtracted at layer {place_of(best)}."
        if shown
        else f"No: subtracting the mean difference at layer {place_of(best)}, where it does most, is not shown to do it."
    )
    parts = [
        f"{words} {recovery_of(run)}"
        for kind, words in (("mean difference", "subtracted"), ("component", "its component removed"))
        for run in curves[kind].runs
        if run.place == best.place
    ]
    back = next((run for run in curves_by_kind(one, one.second)["mean difference"].runs if run.place == best.place), None)
    if back is not None:
        parts.append(f"added to {named(one.first)} {recovery_of(back)}")
    evidence = f"recovery at layer {place_of(best)}: {', '.join(parts)}; a random vector of the same norm {share(null)}"
    yield Finding(subject=one.subject, question=question, answer=answer, evidence=evidence, shown=shown)


def few_components(one: PairResult) -> Iterator[Finding]:
    """Whether few heads and MLPs carry the difference: runs of `attribution`."""
    curves = curves_by_kind(one, one.second)
    top = sorted(curves["top components"].runs, key=lambda run: run.place or 0.0)
    enough = next((run for run in top if recovered(run) >= HALF), None)
    at = enough or max(top, key=recovered)
    null = most_at(curves["random components"], at)
    shown = carries(at, null)
    answer = (
        f"{place_of(at)} of the heads and MLPs {'brings' if at.place == 1 else 'bring'} {share(recovered(at))} of the difference "
        f"into {named(one.first)}."
        if shown
        else f"It is not shown that few do: the {place_of(at)} with the largest estimates bring {share(recovered(at))}."
    )
    each = ", ".join(f"{place_of(run)} components {recovery_of(run)}" for run in top)
    evidence = f"recovery by exact patches of those with the largest estimates: {each}; as many random ones {share(null)}"
    question = "Do few components carry the difference?"
    yield Finding(subject=one.subject, question=question, answer=answer, evidence=evidence, shown=shown)
