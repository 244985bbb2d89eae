"""What fine-tuning changed, from measurements of pairs of checkpoints: refusals in each run of a pair, and what is recovered.

Recovery puts a run between both checkpoints: 0 where the target is as it was, 1 where it refuses as the source does. It is
defined only where the two checkpoints refuse differently. Pure functions of typed records.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from demur.analysis.cell import Record
from demur.analysis.diff.upstream_late import UpstreamLate, upstream_late
from demur.core.effects.mean_change import mean_change
from demur.core.statistics import mean_probability_interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

ALONE = "alone"
"""The kind of a run of one checkpoint as it is."""

DRAWS = 2000
"""Bootstrap samples of the instructions."""

HALF = 0.5
"""A layer from which this part is recovered is where the transition is."""

LEAST_RANGE = 0.02
"""Checkpoints whose mean probabilities of a refusal differ by less than this are not told apart."""


@dataclass(frozen=True)
class MeasuredRun:
    """One run of a pair as the measurement stored it.

    Attributes:
        source: the checkpoint that something was taken from.
        target: the checkpoint that it was put into.
        kind: what was done; `alone` for a checkpoint as it is.
        place: a layer, a coefficient; None if the kind has no place.
        probability: the probability of a refusal for each instruction.
        broken_more: by how much the share of broken text among its greedy completions is above that of the target as it is; None
            where none were written.
    """

    source: str
    target: str
    kind: str
    place: float | None
    probability: tuple[float, ...]
    broken_more: float | None = None


@dataclass(frozen=True)
class MeasuredPair:
    """A stored measurement of a pair.

    Attributes:
        measurement: its name.
        subject: the pair.
        first: the earlier checkpoint.
        second: the later one.
        prompt: the prompt format in which both were asked.
        judge: the judge whose refusals are counted.
        runs: the runs.
        gap: how far a probability may be too low, on average in the run where this is most.
    """

    measurement: str
    subject: str
    first: str
    second: str
    prompt: str
    judge: str
    runs: tuple[MeasuredRun, ...]
    gap: float


class PairRun(Record):
    """One run of a pair.

    Attributes:
        place: a layer, a coefficient; None if the kind has no place.
        rate: the mean probability of a refusal.
        ci95: its interval over instructions; None if it has none.
        recovery: 0 for the target as it is, 1 for the source; None if both are not told apart.
        recovery_ci95: its bootstrap interval over instructions.
        broken_more: by how much the share of broken text among its greedy completions is above that of the target as it is; None
            where none were written.
    """

    place: float | None
    rate: float
    ci95: tuple[float, float] | None
    recovery: float | None
    recovery_ci95: tuple[float, float] | None
    broken_more: float | None = None


class PairCurve(Record):
    """The runs of one kind from one checkpoint into the other, by place."""

    source: str
    target: str
    kind: str
    runs: tuple[PairRun, ...]


class Transition(Record):
    """The first layer from which half is recovered.

    Attributes:
        source: the checkpoint that the stream was taken from.
        target: the checkpoint that it was put into.
        kind: the kind of runs.
        layer: the first measured layer with a recovery of at least a half; None if there is none.
        ci95: its bootstrap interval over instructions; None where more than a twentieth of the samples have no such layer.
    """

    source: str
    target: str
    kind: str
    layer: int | None
    ci95: tuple[int, int] | None


class PairResult(Record):
    """One measurement of a pair of checkpoints under one prompt format.

    Attributes:
        measurement: its name.
        subject: the pair.
        first: the earlier checkpoint.
        second: the later one.
        prompt: the prompt format in which both were asked.
        judge: the judge whose refusals are counted.
        n: the number of instructions.
        first_rate: the mean probability of a refusal of the earlier checkpoint as it is.
        second_rate: the same of the later one.
        difference_ci95: the interval of their difference, which is the later one minus the earlier one.
        differs: whether both are told apart.
        gap: how far a mean may be too low, because unlikely beginnings are not followed.
        curves: the runs.
        transitions: where half is recovered.
        halves: upstream and late layers in all four combinations; None if the stream was not patched in both directions.
    """

    measurement: str
    subject: str
    first: str
    second: str
    prompt: str
    judge: str
    n: int
    first_rate: float
    second_rate: float
    difference_ci95: tuple[float, float]
    differs: bool
    gap: float
    curves: tuple[PairCurve, ...]
    transitions: tuple[Transition, ...] = ()
    halves: UpstreamLate | None = None


def pair_results(measured: Sequence[MeasuredPair], *, by_layer: Sequence[str] = ("stream", "prefix")) -> list[PairResult]:
    """The results of measurements of pairs.

    Args:
        measured: the measurements.
        by_layer: the kinds of runs whose transition along the layers is wanted.

    Returns:
        One result for each, in order. A measurement without both checkpoints as they are is left out.
    """
    return [found for one in measured if (found := _result(one, by_layer)) is not None]


def _result(one: MeasuredPair, by_layer: Sequence[str]) -> PairResult | None:
    import numpy

    alone = {run.target: numpy.array(run.probability) for run in one.runs if run.kind == ALONE}
    if {one.first, one.second} - set(alone):
        return None
    changed = mean_change(*(alone[name].tolist() for name in (one.first, one.second)))
    low, high = changed.ci95 or (-1.0, 1.0)
    differs = (low > 0 or high < 0) and abs(changed.change) >= LEAST_RANGE
    samples = _samples(changed.n)
    kinds: dict[tuple[str, str, str], list[MeasuredRun]] = {}
    for run in one.runs:
        if run.kind != ALONE:
            kinds.setdefault((run.source, run.target, run.kind), []).append(run)
    curves, transitions = [], []
    for (source, target, kind), runs in kinds.items():
        ends = (alone[target], alone[source]) if differs else None
        curves.append(PairCurve(source=source, target=target, kind=kind, runs=tuple(_run(run, ends, samples) for run in runs)))
        if kind in by_layer and ends is not None:
            transitions.append(_transition(runs, ends, samples))
    return PairResult(
        measurement=one.measurement,
        subject=one.subject,
        first=one.first,
        second=one.second,
        prompt=one.prompt,
        judge=one.judge,
        n=changed.n,
        first_rate=float(alone[one.first].mean()),
        second_rate=float(alone[one.second].mean()),
        difference_ci95=(low, high),
        differs=differs,
        gap=one.gap,
        curves=tuple(curves),
        transitions=tuple(transitions),
        halves=_halves(one, alone, samples) if differs else None,
    )


def _halves(one: MeasuredPair, alone: "Mapping[str, NDArray[Any]]", samples: "NDArray[Any]") -> UpstreamLate | None:
    """The four combinations of upstream and late layers, from patches of the whole stream."""
    import numpy

    into: dict[str, dict[int, NDArray[Any]]] = {one.first: {}, one.second: {}}
    for run in one.runs:
        if run.kind == "stream" and run.place is not None:
            into[run.target][int(run.place)] = numpy.array(run.probability)
    return upstream_late((alone[one.first], alone[one.second]), into[one.first], into[one.second], samples)


def _samples(n: int) -> "NDArray[Any]":
    """Bootstrap samples of the instructions, (draw, n). The first is the sample itself."""
    import numpy

    drawn = numpy.random.default_rng(0).integers(0, n, (DRAWS, n))
    return numpy.concatenate((numpy.arange(n)[None], drawn))


def _recoveries(values: "NDArray[Any]", ends: "tuple[NDArray[Any], NDArray[Any]]", samples: "NDArray[Any]") -> "NDArray[Any]":
    """The recovery in each sample; NaN where both checkpoints are alike."""
    import numpy

    run, floor, ceiling = (each[samples].mean(axis=1) for each in (values, *ends))
    with numpy.errstate(invalid="ignore", divide="ignore"):
        found = (run - floor) / (ceiling - floor)
    # In a sample in which the difference nearly vanishes, the ratio says nothing.
    return numpy.where(numpy.abs(ceiling - floor) < LEAST_RANGE / 2, numpy.nan, found)


def _run(run: MeasuredRun, ends: "tuple[NDArray[Any], NDArray[Any]] | None", samples: "NDArray[Any]") -> PairRun:
    import numpy

    rate, interval = sum(run.probability) / len(run.probability), mean_probability_interval(run.probability)
    if ends is None:
        return PairRun(place=run.place, rate=rate, ci95=interval, recovery=None, recovery_ci95=None, broken_more=run.broken_more)
    found = _recoveries(numpy.array(run.probability), ends, samples)
    low, high = numpy.nanquantile(found[1:], (0.025, 0.975))
    bounds = (float(low), float(high))
    return PairRun(
        place=run.place,
        rate=rate,
        ci95=interval,
        recovery=float(found[0]),
        recovery_ci95=bounds,
        broken_more=run.broken_more,
    )


def _transition(runs: Sequence[MeasuredRun], ends: "tuple[NDArray[Any], NDArray[Any]]", samples: "NDArray[Any]") -> Transition:
    """Where half is recovered, along the layers."""
    import numpy

    ordered = sorted(runs, key=lambda run: run.place or 0.0)
    layers = [int(run.place or 0) for run in ordered]
    reached = numpy.stack([_recoveries(numpy.array(run.probability), ends, samples) >= HALF for run in ordered])
    there = numpy.asarray(reached.any(axis=0))
    first = numpy.array(layers)[reached.argmax(axis=0)]
    bounds = None
    if there[1:].mean() >= 1 - 0.05:
        low, high = numpy.quantile(first[1:][there[1:]].astype(float), (0.025, 0.975), method="nearest")
        bounds = (int(low), int(high))
    return Transition(
        source=ordered[0].source,
        target=ordered[0].target,
        kind=ordered[0].kind,
        layer=int(first[0]) if there[0] else None,
        ci95=bounds,
    )


def curves_by_kind(result: PairResult, source: str) -> Mapping[str, PairCurve]:
    """The curves from one checkpoint into the other, by kind."""
    return {curve.kind: curve for curve in result.curves if curve.source == source}
