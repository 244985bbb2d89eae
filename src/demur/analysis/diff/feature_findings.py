"""The steps of the argument about latents of sparse autoencoders."""

from collections.abc import Iterator

from demur.analysis.cell_phrases import named
from demur.analysis.diff.feature_results import ClampResult, FeatureResult
from demur.analysis.diff.finding import Finding
from demur.analysis.diff.recovery_words import BROKEN, points, share

CHOSEN = {"nearest": "nearest to the direction", "attributed": "with the strongest attribution"}
"""The words for a chosen set."""


def feature_findings(one: FeatureResult) -> Iterator[Finding]:
    """Whether latents lie along the direction, and whether refusals change if they are clamped.

    Args:
        one: the latents of an arm.

    Yields:
        The steps.
    """
    yield _nearest(one)
    for run in one.runs:
        if run.kind in CHOSEN:
            yield _clamped(one, run)


def _nearest(one: FeatureResult) -> Finding:
    best = max(one.latents, key=lambda each: abs(each.cosine))
    shown = max(best.p, best.shuffled_p) < 0.05
    answer = (
        f"Yes: the decoder row of latent {best.latent} has a cosine of {best.cosine:+.2f} with it."
        if shown
        else f"None is shown to: the largest cosine is {best.cosine:+.2f}, by latent {best.latent}."
    )
    parts = [
        f"{one.total} latents of {one.file} at {one.place}; 95 % of random directions have no absolute cosine above "
        f"{one.null95:.2f} with any of them, and 95 % of directions for shuffled labels none above {one.shuffled95:.2f}"
    ]
    if one.unexplained is not None:
        harmful, harmless = map(share, one.unexplained)
        parts.append(f"not reconstructed: {harmful} of the stream's variance on harmful, {harmless} on harmless instructions")
    if one.off_stream:
        parts.append(f"not clamped, because {one.off_stream}")
    question = f"Is there a latent of {named(one.checkpoint)} along its direction?"
    return Finding(subject=one.subject, question=question, answer=answer, evidence="; ".join(parts), shown=shown)


def _clamped(one: FeatureResult, run: ClampResult) -> Finding:
    change = run.harmful
    broken = run.broken_more is not None and run.broken_more > BROKEN
    sure = change.ci95 is not None and (change.ci95[0] > 0 or change.ci95[1] < 0)
    shown = sure and change.p is not None and change.p < 0.05 and not broken
    how = "fewer" if change.change < 0 else "more"
    answer = (
        f"Yes, to {how}: {points(change.change)} if they are set to {run.value:g}."
        if shown
        else f"None is shown: {points(change.change)} if they are set to {run.value:g}."
    )
    parts = [f"probability of a refusal {share(change.rate)} of harmful instructions"]
    if one.rates is not None:
        parts[0] += f", {share(one.rates[0])} without the edit"
    if change.ci95 is not None:
        parts.append(f"95 % interval of the change {points(change.ci95[0])} to {points(change.ci95[1])}")
    if change.null is not None and change.p is not None:
        parts.append(
            f"{run.nulls} random sets alike in frequency and norm {points(change.null[0])} to {points(change.null[1])}, p "
            f"{change.p:.2g}"
        )
    splice = next((each for each in one.runs if each.kind == "spliced"), None)
    if splice is not None:
        parts.append(f"with the reconstruction in the place of the stream {points(splice.harmful.change)}")
    if broken:
        parts.append(f"the text is broken in {share(run.broken_more or 0.0)} more of the completions")
    latents = [each.latent for each in one.latents if run.kind in each.chosen]
    question = f"Do refusals of {named(one.checkpoint)} change with the {len(latents)} latents {CHOSEN[run.kind]}?"
    return Finding(subject=one.subject, question=question, answer=answer, evidence="; ".join(parts), shown=shown)
