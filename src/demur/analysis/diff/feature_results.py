"""Latents of sparse autoencoders near the direction, and refusals without them: pure functions of typed records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from demur.analysis.cell import Record
from demur.core.effects.mean_change import mean_change

if TYPE_CHECKING:
    from numpy.typing import NDArray

LABELS = ("harmful", "harmless")
RANDOM = "random "
"""Begins the kind of a run with random latents; the name of the chosen set follows."""


@dataclass(frozen=True)
class MeasuredLatentRun:
    """One run of a checkpoint as the measurement stored it.

    Attributes:
        kind: `alone`, `spliced`, the name of a chosen set, or `random` and that name.
        value: what the latents are set to; None where none are.
        probability: the probability of a refusal for each instruction, by label.
        frequency: how often the latents that it sets are active, on average; NaN where it sets none.
        norm: the mean norm of their decoder rows.
        broken_more: by how much the share of broken text among its greedy completions is above that of the checkpoint as it is;
            None where none were written.
    """

    kind: str
    value: float | None
    probability: Mapping[str, tuple[float, ...]]
    frequency: float
    norm: float
    broken_more: float | None = None


@dataclass(frozen=True, eq=False)
class MeasuredFeatures:
    """A stored measurement of one arm. Arrays have one entry for each listed latent.

    Attributes:
        subject: the arm.
        checkpoint: its checkpoint.
        prompt: its prompt format.
        file: the name of the autoencoder's file.
        format: the format of the file.
        place: the point of the stream at which it reads, in words.
        total: how many latents it has.
        direction: the name of the direction.
        direction_layer: the layer of the direction.
        off_stream: why its latents were not clamped; empty if they were.
        latents: the numbers of the listed latents.
        chosen: the clamped latents, by the name of the set.
        runs: the runs.
        arrays: `cosine`, `norm`, `decoder`, and of the nulls `null_cosine` and `shuffled_cosine`; if it was run `frequency` and
            `mean` (by label), `attribution`, `unexplained` (by label).
    """

    subject: str
    checkpoint: str
    prompt: str
    file: str
    format: str
    place: str
    total: int
    direction: str
    direction_layer: int
    off_stream: str
    latents: tuple[int, ...]
    chosen: Mapping[str, tuple[int, ...]]
    runs: tuple[MeasuredLatentRun, ...]
    arrays: "Mapping[str, NDArray[Any]]"


class LatentResult(Record):
    """One listed latent.

    Attributes:
        latent: its number.
        cosine: of its decoder row with the direction.
        p: (1 + random directions whose largest absolute cosine with any latent is at least as high) / (1 + random directions).
        shuffled_p: the same with directions for shuffled labels.
        norm: the norm of its decoder row.
        frequency: the share of token positions at which it is active, on harmful and on harmless instructions; None if the
            autoencoder was not run.
        mean: its mean activation there.
        attribution: in nats, on harmful training instructions: the change of the log-odds of a refusal by way of this latent if
            the direction is ablated.
        chosen: the sets in which it was clamped.
    """

    latent: int
    cosine: float
    p: float
    shuffled_p: float
    norm: float
    frequency: tuple[float, float] | None
    mean: tuple[float, float] | None
    attribution: float | None
    chosen: tuple[str, ...]


class ClampChange(Record):
    """What a run does to refusals of one label.

    Attributes:
        rate: the mean probability of a refusal.
        change: the change from the checkpoint as it is.
        ci95: the interval of the change over instructions; None if it has none.
        null: the least and the greatest change with random latents; None for a run without them.
        p: (1 + random sets with an absolute change at least as large) / (1 + random sets).
    """

    rate: float
    change: float
    ci95: tuple[float, float] | None
    null: tuple[float, float] | None
    p: float | None


class ClampResult(Record):
    """A run that is no null.

    Attributes:
        kind: `spliced`, or the name of the clamped set.
        value: what the latents are set to.
        harmful: refusals of harmful instructions.
        harmless: refusals of harmless ones.
        nulls: how many sets of random latents.
        frequency: how often the latents are active, and the random ones, on average over both labels.
        norm: the mean norm of their decoder rows, and of the random ones.
        broken_more: by how much more of the text is broken; None where none was written.
    """

    kind: str
    value: float | None
    harmful: ClampChange
    harmless: ClampChange
    nulls: int
    frequency: tuple[float, float] | None
    norm: tuple[float, float] | None
    broken_more: float | None


class FeatureResult(Record):
    """The latents of one arm.

    Attributes:
        subject: the arm.
        checkpoint: its checkpoint.
        prompt: its prompt format.
        file: the name of the autoencoder's file.
        format: the format of the file.
        place: the point of the stream at which it reads, in words.
        total: how many latents it has.
        direction: the name of the direction.
        direction_layer: the layer of the direction.
        off_stream: why its latents were not clamped; empty if they were.
        null95: the absolute cosine with any latent that 95 % of random directions stay below.
        shuffled95: that which 95 % of directions for shuffled labels stay below.
        unexplained: the share of the stream's variance that it does not reconstruct, on harmful and on harmless instructions.
        rates: the mean probability of a refusal of the checkpoint as it is, on both.
        n: the number of instructions of each label.
        latents: the listed latents.
        runs: the splice, and the clamped sets.
    """

    subject: str
    checkpoint: str
    prompt: str
    file: str
    format: str
    place: str
    total: int
    direction: str
    direction_layer: int
    off_stream: str
    null95: float
    shuffled95: float
    unexplained: tuple[float, float] | None
    rates: tuple[float, float] | None
    n: tuple[int, int] | None
    latents: tuple[LatentResult, ...]
    runs: tuple[ClampResult, ...]


def feature_results(measured: Sequence[MeasuredFeatures]) -> list[FeatureResult]:
    """The results of measurements of `features`.

    Args:
        measured: the measurements.

    Returns:
        One result for each, in order.
    """
    return [_result(one) for one in measured]


_NAMED = ("subject", "checkpoint", "prompt", "file", "format", "place", "total", "direction", "direction_layer", "off_stream")
"""What a result takes over from its measurement."""


def _result(one: MeasuredFeatures) -> FeatureResult:
    import numpy

    alone = next((run for run in one.runs if run.kind == "alone"), None)
    unexplained = one.arrays.get("unexplained")
    return FeatureResult(
        **{name: getattr(one, name) for name in _NAMED},
        null95=float(numpy.quantile(one.arrays["null_cosine"], 0.95)),
        shuffled95=float(numpy.quantile(one.arrays["shuffled_cosine"], 0.95)),
        unexplained=None if unexplained is None else (float(unexplained[0]), float(unexplained[1])),
        rates=None if alone is None else _pair([float(numpy.mean(alone.probability[label])) for label in LABELS]),
        n=None if alone is None else (len(alone.probability["harmful"]), len(alone.probability["harmless"])),
        latents=tuple(_latent(one, at) for at in range(len(one.latents))),
        runs=() if alone is None else tuple(_clamp(one, run, alone) for run in one.runs if _is_result(run)),
    )


def _is_result(run: MeasuredLatentRun) -> bool:
    return run.kind != "alone" and not run.kind.startswith(RANDOM)


def _pair(values: Sequence[float]) -> tuple[float, float]:
    return values[0], values[1]


def _latent(one: MeasuredFeatures, at: int) -> LatentResult:
    arrays, cosine = one.arrays, float(one.arrays["cosine"][at])
    chances = [_chance(arrays[name], cosine) for name in ("null_cosine", "shuffled_cosine")]
    run = "frequency" in arrays
    return LatentResult(
        latent=one.latents[at],
        cosine=cosine,
        p=chances[0],
        shuffled_p=chances[1],
        norm=float(arrays["norm"][at]),
        frequency=_pair(arrays["frequency"][:, at].tolist()) if run else None,
        mean=_pair(arrays["mean"][:, at].tolist()) if run else None,
        attribution=float(arrays["attribution"][at]) if "attribution" in arrays else None,
        chosen=tuple(name for name, latents in one.chosen.items() if one.latents[at] in latents),
    )


def _chance(null: "NDArray[Any]", cosine: float) -> float:
    return (1 + int((null >= abs(cosine)).sum())) / (1 + len(null))


def _clamp(one: MeasuredFeatures, run: MeasuredLatentRun, alone: MeasuredLatentRun) -> ClampResult:
    nulls = [each for each in one.runs if each.kind == f"{RANDOM}{run.kind}" and each.value == run.value]
    changes = {label: _change(label, run, alone, nulls) for label in LABELS}
    return ClampResult(
        kind=run.kind,
        value=run.value,
        harmful=changes["harmful"],
        harmless=changes["harmless"],
        nulls=len(nulls),
        frequency=(run.frequency, fmean(each.frequency for each in nulls)) if nulls else None,
        norm=(run.norm, fmean(each.norm for each in nulls)) if nulls else None,
        broken_more=run.broken_more,
    )


def _change(label: str, run: MeasuredLatentRun, alone: MeasuredLatentRun, nulls: Sequence[MeasuredLatentRun]) -> ClampChange:
    before, after = alone.probability[label], run.probability[label]
    found = mean_change(before, after)
    others = [sum(each.probability[label]) / len(before) - sum(before) / len(before) for each in nulls]
    return ClampChange(
        rate=sum(after) / len(after),
        change=found.change,
        ci95=found.ci95,
        null=(min(others), max(others)) if others else None,
        p=(1 + sum(abs(each) >= abs(found.change) for each in others)) / (1 + len(others)) if others else None,
    )
