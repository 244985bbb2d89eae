"""The steps of the argument about weights: which layers, which kind, and how many dimensions of each matrix carry it."""

from collections.abc import Iterator, Sequence

from demur.analysis.cell_phrases import named
from demur.analysis.diff.finding import Finding
from demur.analysis.diff.pair_results import HALF, PairCurve, PairResult, PairRun, curves_by_kind
from demur.analysis.diff.recovery_words import (
    broken_text,
    carries,
    is_broken,
    most_at,
    place_of,
    recovered,
    recovery_of,
    share,
)

_PARTS = {
    "all attention": "all attention",
    "all mlp": "all MLPs",
    "all norms": "all norms",
    "embeddings": "the embeddings",
    "unembedding": "the unembedding",
}


def weight_findings(one: PairResult) -> Iterator[Finding]:
    """The steps: runs of `weight-swaps` from the later checkpoint into the earlier one.

    Args:
        one: the runs.
    """
    curves = curves_by_kind(one, one.second)
    yield _layers(one, sorted(curves["window"].runs, key=lambda run: run.place or 0.0), curves["permuted"])
    yield _kinds(one, [(words, curves[kind].runs[0]) for kind, words in _PARTS.items() if kind in curves])
    # Records from before there were ranks have none.
    if "rank" in curves:
        ranks = sorted(curves["rank"].runs, key=lambda run: run.place or 0.0)
        yield _rank(one, ranks, curves["random rank"], curves["all matrices"].runs[0])


def _sound(runs: Sequence[PairRun]) -> Sequence[PairRun]:
    """The runs whose text is not broken; all of them if there is no other."""
    return [run for run in runs if not is_broken(run)] or runs


def _said(run: PairRun) -> str:
    """What a run recovers, with a note if its text is broken."""
    return f"{recovery_of(run)} ({broken_text(run)})" if is_broken(run) else recovery_of(run)


def _layers(one: PairResult, windows: Sequence[PairRun], permuted: PairCurve) -> Finding:
    best = max(_sound(windows), key=recovered)
    number = windows.index(best)
    start = 0 if number == 0 else int(windows[number - 1].place or 0) + 1
    layers = f"layer {place_of(best)}" if start == best.place else f"layers {start} to {place_of(best)}"
    null = most_at(permuted, best)
    shown = carries(best, null) and not is_broken(best)
    answer = (
        f"The weights of {layers} alone bring {share(recovered(best))} of the difference into {named(one.first)}."
        if shown
        else f"No window of layers carries it alone: the best, {layers}, brings {share(recovered(best))}."
    )
    evidence = f"recovery {_said(best)} with {layers}; permuted differences of the same norm recover {share(null)}"
    question = "Which layers' weights carry the difference?"
    return Finding(subject=one.subject, question=question, answer=answer, evidence=evidence, shown=shown)


def _kinds(one: PairResult, parts: Sequence[tuple[str, PairRun]]) -> Finding:
    best = max(_sound([run for _, run in parts]), key=recovered)
    words = next(each for each, run in parts if run is best)
    enough = recovered(best) >= HALF and best.recovery_ci95 is not None and best.recovery_ci95[0] > 0 and not is_broken(best)
    answer = (
        f"Those of {words}: they bring {share(recovered(best))} of it."
        if enough
        else f"No one kind of weights: {words}, the most, bring {share(recovered(best))} of it."
    )
    evidence = "recovery " + ", ".join(f"{each} {_said(run)}" for each, run in parts)
    question = "Which kind of weights carries it?"
    return Finding(subject=one.subject, question=question, answer=answer, evidence=evidence, shown=enough)


def _rank(one: PairResult, ranks: Sequence[PairRun], null: PairCurve, whole: PairRun) -> Finding:
    sound = _sound(ranks)
    at = next((run for run in sound if recovered(run) >= HALF), None) or max(sound, key=recovered)
    chance = most_at(null, at)
    shown = carries(at, chance) and not is_broken(at)
    answer = (
        f"The best part of rank {place_of(at)} of every matrix brings {share(recovered(at))} of the difference into "
        f"{named(one.first)}, and whole matrices {share(recovered(whole))}."
        if shown
        else f"It is not shown that few do: the best parts of rank {place_of(at)} bring {share(recovered(at))}."
    )
    each = ", ".join(f"rank {place_of(run)} {_said(run)}" for run in ranks)
    evidence = (
        f"recovery {each}; whole matrices of attention and MLPs {_said(whole)}; random matrices of rank {place_of(at)} with the "
        f"same singular values {share(chance)}"
    )
    question = "Do few dimensions of each weight matrix carry it?"
    return Finding(subject=one.subject, question=question, answer=answer, evidence=evidence, shown=shown)
