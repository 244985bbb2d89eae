"""Which heads and MLPs write the difference in the log-odds of a refusal, and how far estimates agree with exact patches.

Pure functions of typed records.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from demur.analysis.cell import Record
from demur.analysis.cell_phrases import named
from demur.analysis.diff.divergence_results import Estimate, estimate_of
from demur.analysis.diff.finding import Finding
from demur.core.statistics import holm

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAMED = 3
"""An answer names at most this many components."""
AGREES = 0.5
"""Estimates are trusted if their correlation with exact patches is shown to be above this."""


@dataclass(frozen=True, eq=False)
class MeasuredAttribution:
    """A stored attribution of a pair.

    Attributes:
        subject: the pair.
        first: the earlier checkpoint.
        second: the later one.
        layers: the layer of each component.
        heads: its head; -1 for an MLP.
        direct: what each component adds, (checkpoint, instruction, component), the earlier checkpoint first.
        log_odds: the log-odds that the first token begins a refusal, (checkpoint, instruction).
        estimate: the estimated change by a patch, (direction, instruction, component), into the earlier checkpoint first.
        exact: the exact change by a patch, (direction, tested component, instruction).
        tested: the places of the tested components, (direction, tested component).
    """

    subject: str
    first: str
    second: str
    layers: Sequence[int]
    heads: Sequence[int]
    direct: "NDArray[Any]"
    log_odds: "NDArray[Any]"
    estimate: "NDArray[Any]"
    exact: "NDArray[Any]"
    tested: "NDArray[Any]"


class ComponentResult(Record):
    """One head or MLP.

    Attributes:
        layer: its layer.
        head: its head; None for an MLP.
        direct: what it adds in the earlier and in the later checkpoint, in nats.
        change: the later one's minus the earlier one's, with the interval over instructions.
        p: the p value of the change (paired t test), corrected for all components (Holm).
        estimate: the estimated change of the log-odds by putting it into the earlier and into the later checkpoint.
        exact: the exact change; None where it was not patched.
    """

    layer: int
    head: int | None
    direct: tuple[float, float]
    change: Estimate
    p: float
    estimate: tuple[float, float]
    exact: tuple[float | None, float | None]

    @property
    def name(self) -> str:
        """The words for it."""
        return f"MLP of layer {self.layer}" if self.head is None else f"head {self.head} of layer {self.layer}"


class Correlation(Record):
    """How far estimates agree with exact patches of the same components.

    Attributes:
        source: the checkpoint that the components were taken from.
        target: the checkpoint that they were put into.
        n: the number of components: those with the largest estimates, and as many random ones.
        r: Pearson's correlation over components; None if all changes are the same.
        ci95: its interval by Fisher's z.
    """

    source: str
    target: str
    n: int
    r: float | None
    ci95: tuple[float, float] | None


class LayerShare(Record):
    """What one layer's heads together, and its MLP, add to the change between the checkpoints, in nats."""

    layer: int
    heads: Estimate
    mlp: Estimate


class AttributionResult(Record):
    """The attribution of a pair.

    Attributes:
        subject: the pair.
        first: the earlier checkpoint.
        second: the later one.
        n: the number of instructions.
        log_odds: the mean log-odds that the first token begins a refusal, in both checkpoints.
        components: every head and MLP, those with the largest direct change first.
        by_layer: the direct change by layer.
        correlations: how far estimates agree with exact patches, in both directions.
    """

    subject: str
    first: str
    second: str
    n: int
    log_odds: tuple[float, float]
    components: tuple[ComponentResult, ...]
    by_layer: tuple[LayerShare, ...]
    correlations: tuple[Correlation, ...]


def attribution_results(measured: Sequence[MeasuredAttribution]) -> list[AttributionResult]:
    """The results of measurements of `attribution`.

    Args:
        measured: the measurements.

    Returns:
        One result for each, in order.
    """
    return [_result(one) for one in measured]


def _result(one: MeasuredAttribution) -> AttributionResult:
    import numpy

    change = one.direct[1].astype(float) - one.direct[0].astype(float)
    p_values = holm(_p_values(change))
    exact: list[dict[int, float]] = [
        dict(zip(places.tolist(), changes.mean(axis=1).tolist(), strict=True))
        for places, changes in zip(one.tested, one.exact, strict=True)
    ]
    direct, estimates = one.direct.mean(axis=1), one.estimate.mean(axis=1)
    components = [
        ComponentResult(
            layer=layer,
            head=None if head < 0 else head,
            direct=(float(direct[0, place]), float(direct[1, place])),
            change=estimate_of(change[:, place]),
            p=p_values[place],
            estimate=(float(estimates[0, place]), float(estimates[1, place])),
            exact=(exact[0].get(place), exact[1].get(place)),
        )
        for place, (layer, head) in enumerate(zip(one.layers, one.heads, strict=True))
    ]
    layers, heads = numpy.array(one.layers), numpy.array(one.heads)
    shares = [
        LayerShare(
            layer=layer,
            heads=estimate_of(change[:, (layers == layer) & (heads >= 0)].sum(axis=1)),
            mlp=estimate_of(change[:, (layers == layer) & (heads < 0)].sum(axis=1)),
        )
        for layer in sorted(set(one.layers))
    ]
    ways = ((one.second, one.first), (one.first, one.second))
    return AttributionResult(
        subject=one.subject,
        first=one.first,
        second=one.second,
        n=change.shape[0],
        log_odds=(float(one.log_odds[0].mean()), float(one.log_odds[1].mean())),
        components=tuple(sorted(components, key=lambda each: -abs(each.change.mean))),
        by_layer=tuple(shares),
        correlations=tuple(_correlation(*way, estimates[number], exact[number]) for number, way in enumerate(ways)),
    )


def _p_values(change: "NDArray[Any]") -> list[float]:
    """Paired t tests, one for each component; 1 where nothing changes."""
    import numpy
    from scipy.special import stdtr

    n = change.shape[0]
    mean, error = change.mean(axis=0), change.std(axis=0, ddof=1) / math.sqrt(n)
    with numpy.errstate(invalid="ignore", divide="ignore"):
        t = numpy.abs(mean) / error
    found = numpy.where(mean == 0, 1.0, 2 * stdtr(n - 1, -numpy.where(error > 0, t, numpy.inf)))
    return [float(p) for p in found]


def _correlation(source: str, target: str, estimates: "NDArray[Any]", exact: "dict[int, float]") -> Correlation:
    import numpy

    pairs = numpy.array([(estimates[place], change) for place, change in exact.items()], dtype=float)
    n = len(pairs)
    if n < 4 or (pairs.std(axis=0) == 0).any():
        return Correlation(source=source, target=target, n=n, r=None, ci95=None)
    r = float(numpy.corrcoef(pairs.T)[0, 1])
    inside = min(max(r, -1 + 1e-12), 1 - 1e-12)
    middle, reach = math.atanh(inside), 1.959964 / math.sqrt(n - 3)
    return Correlation(source=source, target=target, n=n, r=r, ci95=(math.tanh(middle - reach), math.tanh(middle + reach)))


def attribution_findings(one: AttributionResult) -> Iterator[Finding]:
    """Which components write the difference, and whether the estimates can be trusted.

    Args:
        one: the attribution of a pair.

    Yields:
        The steps; only the first for checkpoints without a difference.
    """
    changed = [each for each in one.components if each.p < 0.05]
    total = sum(each.change.mean for each in one.components)
    odds = f"{one.log_odds[0]:+.2f} in {named(one.first)}, {one.log_odds[1]:+.2f} in {named(one.second)}"
    if changed:
        listed = ", ".join(f"{each.name} ({each.change.mean:+.2g} nats)" for each in changed[:NAMED])
        answer = f"{len(changed)} of {len(one.components)} heads and MLPs write something else; the most: {listed}."
    else:
        answer = f"None of the {len(one.components)} heads and MLPs is shown to write something else."
    evidence = (
        f"log-odds that the first token begins a refusal {odds}; direct attribution, summed over components {total:+.2f} nats; "
        f"paired t tests, corrected by Holm; n = {one.n}"
    )
    question = "Which components write the difference in the log-odds of a refusal?"
    yield Finding(subject=one.subject, question=question, answer=answer, evidence=evidence, shown=bool(changed))
    known = [each for each in one.correlations if each.r is not None and each.ci95 is not None]
    if not known:
        return
    said = "; ".join(
        f"{named(each.source)} into {named(each.target)}: r = {each.r:.2f} ({each.ci95[0]:.2f} to {each.ci95[1]:.2f}) "
        f"over {each.n} components"
        for each in known
        if each.r is not None and each.ci95 is not None
    )
    agrees = all(each.ci95 is not None and each.ci95[0] > AGREES for each in known)
    answer = (
        "Yes: components with larger estimates change more when they are patched."
        if agrees
        else "Not shown: what attribution patching says of single components is not relied on."
    )
    question = "Do the estimates of attribution patching agree with exact patches?"
    yield Finding(subject=one.subject, question=question, answer=answer, evidence=said, shown=agrees)
