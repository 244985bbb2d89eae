"""`weight-swaps`: which weights carry the difference in refusals, by putting some of one checkpoint's into the other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, Field

from demur.core.errors import WorkError
from demur.measurements.diffing.diff_runs import DiffRun, PairMeasurement, PairSettings, material_of, record_of
from demur.measurements.exact_refusal.sampling import PROMPTS_A_ROW
from demur.measurements.measurement import MeasurementRecord, PairSubject, PlannedSubject

if TYPE_CHECKING:
    from demur.engine.lockstep.matched_pair import MatchedPair
    from demur.engine.lockstep.weight_swap import WeightPlace
    from demur.measurements.exact_refusal.refusal_probability import BoundedProbability

EXACT = 1e-6
"""A probability at an end of the interpolation differs from that of the checkpoint by at most this much, which is rounding."""


class SwapSettings(PairSettings):
    """Settings of `weight-swaps`.

    Attributes:
        windows: into how many windows of layers the checkpoint is cut, at most; each has one layer if there are as many.
        shares: the shares of the difference for which all weights are interpolated; 0 and 1 are always there.
        nulls: how many null differences there are for each window.
    """

    windows: int = Field(default=10, ge=1)
    shares: tuple[float, ...] = (0.25, 0.5, 0.75)
    nulls: int = Field(default=1, ge=1)


@dataclass(frozen=True)
class Swap:
    """Some weights to exchange.

    Attributes:
        kind: the kind of the run.
        place: the last layer of a window, or the share.
        names: the weights.
        share: how much of the difference.
        scrambled: for a null, the seed of the permutation.
    """

    kind: str
    place: float | int | None
    names: tuple[str, ...]
    share: float = 1.0
    scrambled: int | None = None


class WeightSwaps(PairMeasurement):
    """The measurement `weight-swaps` of each pair of checkpoints under one prompt format.

    Weights are exchanged in memory and put back afterwards. Source of the interpolation: Ilharco et al. 2023 (arXiv 2212.04089).
    """

    name: ClassVar[str] = "weight-swaps"
    settings: ClassVar[type[BaseModel] | None] = SwapSettings

    def measure(self, subject: PairSubject, settings: SwapSettings) -> MeasurementRecord:
        """Exchange every group of weights, in both directions.

        Args:
            subject: the pair.
            settings: what is measured.

        Returns:
            The record of `record_of`. The kinds of its runs are `alone`; `interpolation`, of all weights; `window`, `prefix` and
            `suffix` of layers, `attention` and `mlp` of a window, and `permuted`, the null of `window`; and without a place
            `all attention`, `all mlp`, `all norms`, `embeddings` and `unembedding`.

        Raises:
            InputError: if the checkpoints do not match, or their weights cannot be exchanged.
            WorkError: if an end of the interpolation is not the checkpoint.
        """
        from demur.engine.lockstep.weight_swap import check_swap, exchanged, weight_places
        from demur.measurements.diffing.pair_probabilities import edited_probabilities

        material = material_of(subject, settings.instructions)
        check_swap(material.pair)
        runs: list[DiffRun] = []
        found: list[BoundedProbability] = []

        def probability(pair: "MatchedPair") -> "BoundedProbability":
            (one,) = edited_probabilities(pair.target, pair, material.prompts, settings.sampling)
            return one

        for pair in (material.pair, material.pair.reversed):
            runs.append(DiffRun(pair.target.name, pair.target.name))
            found.append(probability(pair))
            for swap in swaps(weight_places(pair.target), pair.target.n_layers, settings):
                with exchanged(pair, swap.names, swap.share, swap.scrambled):
                    found.append(probability(pair))
                runs.append(DiffRun(pair.source.name, pair.target.name, swap.kind, swap.place))
                subject.second.progress(len(material.prompts))
        _check_ends(runs, found)
        return record_of(subject, settings, runs, found)

    def prompts(self, settings: SwapSettings, planned: PlannedSubject) -> float | int:
        """The instructions with every exchange: of each window with its nulls, each share, and the five kinds without a place."""
        windows = min(settings.windows, planned.layers or settings.windows)
        runs = 1 + windows * (5 + settings.nulls) + len({*settings.shares, 0.0, 1.0}) + 5
        return PROMPTS_A_ROW * settings.instructions * runs


def swaps(places: "dict[str, WeightPlace]", n_layers: int, settings: SwapSettings) -> Iterator[Swap]:
    """Every exchange in one direction.

    Args:
        places: the places of the target's weights.
        n_layers: the number of layers.
        settings: what is measured.
    """
    from demur.engine.lockstep.weight_swap import names_in

    for share in sorted({0.0, 1.0, *settings.shares}):
        yield Swap("interpolation", share, tuple(places), share)
    windows = windows_of(n_layers, settings.windows)
    for number, window in enumerate(windows):
        last = window[-1]
        yield Swap("window", last, tuple(names_in(places, (), window)))
        yield Swap("attention", last, tuple(names_in(places, ("attention",), window)))
        yield Swap("mlp", last, tuple(names_in(places, ("mlp",), window)))
        for null in range(settings.nulls):
            seed = settings.seed + 100_000 * (null + 1) * (number + 1)
            yield Swap("permuted", last, tuple(names_in(places, (), window)), scrambled=seed)
        yield Swap("prefix", last, tuple(names_in(places, (), range(last + 1))))
        yield Swap("suffix", last, tuple(names_in(places, (), range(window[0], n_layers))))
    for kind, parts in (
        ("all attention", ("attention",)),
        ("all mlp", ("mlp",)),
        ("all norms", ("norm", "final")),
        ("embeddings", ("embedding",)),
        ("unembedding", ("unembedding",)),
    ):
        names = names_in(places, parts)
        if names:
            yield Swap(kind, None, tuple(names))


def windows_of(n_layers: int, most: int) -> list[range]:
    """The layers, cut into at most `most` windows of nearly equal length."""
    count = min(n_layers, most)
    cuts = [round(n_layers * number / count) for number in range(count + 1)]
    return [range(start, end) for start, end in pairwise(cuts)]


def _check_ends(runs: Sequence[DiffRun], found: "Sequence[BoundedProbability]") -> None:
    """Raises `WorkError` if an end of the interpolation does not refuse as its checkpoint does."""
    alone = {run.target: one.probability for run, one in zip(runs, found, strict=True) if run.kind == "alone"}
    for run, one in zip(runs, found, strict=True):
        if run.kind == "interpolation" and run.place in (0, 1):
            name = run.source if run.place == 1 else run.target
            change = float((one.probability - alone[name]).abs().max())
            if change > EXACT:
                raise WorkError(
                    f"with all weights of {name!r} the other checkpoint of the pair should refuse as {name!r} does, but a "
                    f"probability differs by {change:.2g}; something besides their weights differs, such as buffers"
                )
