"""`weight-swaps`: which weights carry the difference in refusals, by putting some of one checkpoint's into the other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import BaseModel, Field

from demur.core.errors import WorkError
from demur.measurements.diffing.diff_runs import DiffRun, PairMaterial, PairMeasurement, PairSettings, material_of, record_of
from demur.measurements.diffing.written import Draft, Written, judged, written_facts
from demur.measurements.exact_refusal.sampling import PROMPTS_A_ROW
from demur.measurements.measurement import MeasurementRecord, PairSubject, PlannedSubject

if TYPE_CHECKING:
    from demur.engine.lockstep.low_rank import LowRankParts
    from demur.engine.lockstep.matched_pair import MatchedPair
    from demur.engine.lockstep.weight_swap import Difference, WeightPlace
    from demur.measurements.exact_refusal.refusal_probability import BoundedProbability

EXACT = 1e-6
"""A probability at an end of the interpolation differs from that of the checkpoint by at most this much, which is rounding."""

MOVED = 0.02
"""Completions are written where a swap changes the mean probability by this much. A smaller change is not read as one."""


class SwapSettings(PairSettings):
    """Settings of `weight-swaps`.

    Attributes:
        windows: into how many windows of layers the checkpoint is cut, at most; each has one layer if there are as many.
        shares: the shares of the difference for which all weights are interpolated; 0 and 1 are always there.
        ranks: the ranks to which the difference of each matrix of all layers is cut down; none if empty.
        nulls: how many null differences there are for each window and each rank.
        completions: on how many instructions greedy completions are written, where a window, a kind of weights, or a part of low
            rank changes refusals.
    """

    windows: int = Field(default=10, ge=1)
    shares: tuple[float, ...] = (0.25, 0.5, 0.75)
    ranks: tuple[Annotated[int, Field(ge=1)], ...] = (1, 4, 16)
    nulls: int = Field(default=1, ge=1)
    completions: int = Field(default=4, ge=0)


@dataclass(frozen=True)
class Swap:
    """Some weights to exchange.

    Attributes:
        kind: the kind of the run.
        place: the last layer of a window, the share, or the rank.
        names: the weights.
        share: how much of the difference.
        scrambled: for a null, the seed of the permutation.
        changed: what is added in the place of each difference; None for the difference.
        answers: whether an answer may rest on it. Completions are written where it changes refusals.
    """

    kind: str
    place: float | int | None
    names: tuple[str, ...]
    share: float = 1.0
    scrambled: int | None = None
    changed: "Difference | None" = None
    answers: bool = False


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
            `suffix` of layers, `attention` and `mlp` of a window, and `permuted`, the null of `window`; `rank`, of the best part
            of this rank of each matrix of all layers, and `random rank`, its null; and without a place `all matrices`, `all
            attention`, `all mlp`, `all norms`, `embeddings` and `unembedding`. Facts that begin with `written_` have one entry
            for each greedy completion; see `Written`.

        Raises:
            InputError: if the checkpoints do not match, or their weights cannot be exchanged.
            WorkError: if an end of the interpolation is not the checkpoint, or the part of full rank is not the whole.
        """
        from demur.engine.lockstep.weight_swap import check_swap, exchanged, weight_places

        material = material_of(subject, settings.instructions)
        check_swap(material.pair)
        parts = _low_rank(material, settings) if settings.ranks else None
        runs: list[DiffRun] = []
        found: list[BoundedProbability] = []
        written: list[Written] = []
        for pair in (material.pair, material.pair.reversed):
            alone, places = DiffRun(pair.target.name, pair.target.name), weight_places(pair.target)
            floor, drafts = _probability(pair, material.prompts, settings), list[Draft]()
            runs.append(alone)
            found.append(floor)
            for swap in (*swaps(places, pair.target.n_layers, settings), *_rank_swaps(parts, settings)):
                run = DiffRun(pair.source.name, pair.target.name, swap.kind, swap.place)
                with exchanged(pair, swap.names, swap.share, swap.scrambled, swap.changed):
                    one = _probability(pair, material.prompts, settings)
                    moved = abs(float((one.probability - floor.probability).mean())) >= MOVED
                    if settings.completions and moved and swap.answers:
                        drafts.append(_draft(pair, material, settings, run))
                runs.append(run)
                found.append(one)
                subject.second.progress(len(material.prompts))
            if drafts:
                written += judged(pair, material, settings, [_draft(pair, material, settings, alone), *drafts])
        _check_ends(runs, found)
        return record_of(subject, settings, runs, found, **written_facts(written))

    def prompts(self, settings: SwapSettings, planned: PlannedSubject) -> float | int:
        """The instructions with every exchange: of each window and rank with its nulls, each share, and kinds without a place."""
        windows = min(settings.windows, planned.layers or settings.windows)
        runs = 1 + windows * (5 + settings.nulls) + len({*settings.shares, 0.0, 1.0}) + 5
        runs += len(set(settings.ranks)) * (1 + settings.nulls) + bool(settings.ranks)
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
        yield Swap("window", last, tuple(names_in(places, (), window)), answers=True)
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
            yield Swap(kind, None, tuple(names), answers=True)


def _rank_swaps(parts: "LowRankParts | None", settings: SwapSettings) -> Iterator[Swap]:
    """The exchanges of parts of low rank, and of whole matrices, of all layers."""
    if parts is None:
        return
    yield Swap("all matrices", None, parts.names, answers=True)
    for rank in sorted(set(settings.ranks)):
        yield Swap("rank", rank, parts.names, changed=parts.best(rank), answers=True)
        for null in range(settings.nulls):
            seed = settings.seed + 100_000 * (null + 1) + 1000 * rank
            yield Swap("random rank", rank, parts.names, changed=parts.random(rank, seed))


def windows_of(n_layers: int, most: int) -> list[range]:
    """The layers, cut into at most `most` windows of nearly equal length."""
    count = min(n_layers, most)
    cuts = [round(n_layers * number / count) for number in range(count + 1)]
    return [range(start, end) for start, end in pairwise(cuts)]


def _probability(pair: "MatchedPair", prompts: Sequence[tuple[int, ...]], settings: SwapSettings) -> "BoundedProbability":
    """The probability of a refusal in the target as it is now."""
    from demur.measurements.diffing.pair_probabilities import edited_probabilities

    (found,) = edited_probabilities(pair.target, pair, prompts, settings.sampling)
    return found


def _draft(pair: "MatchedPair", material: PairMaterial, settings: SwapSettings, run: DiffRun) -> Draft:
    """Greedy completions of the target as it is now."""
    from demur.engine.engine_protocol import Decoding, Row

    rows = [Row(prompt) for prompt in material.prompts[: settings.completions]]
    found: dict[int, list[int]] = {}
    for done in pair.target.engine_for().generate(rows, Decoding(settings.max_new_tokens, pair.stop_ids, pair.target.pad_id)):
        found |= done
    return Draft(run, [found[row] for row in range(len(rows))])


def _low_rank(material: PairMaterial, settings: SwapSettings) -> "LowRankParts":
    """The singular vectors of the matrices' differences. With the part of full rank, the target refuses as with whole matrices.

    Raises:
        WorkError: if it does not.
    """
    from demur.engine.lockstep.low_rank import LowRankParts
    from demur.engine.lockstep.weight_swap import exchanged

    pair, few = material.pair, material.prompts[:2]
    parts = LowRankParts(pair, max(settings.ranks))
    with exchanged(pair, parts.names, changed=parts.read):
        full = _probability(pair, few, settings)
    with exchanged(pair, parts.names):
        whole = _probability(pair, few, settings)
    change = float((full.probability - whole.probability).abs().max())
    if change > EXACT:
        raise WorkError(
            f"the part of full rank of every matrix should act as the whole matrix, but a probability of {pair.target.name!r} "
            f"differs by {change:.2g}, so no part of low rank can be trusted; set ranks of weight-swaps to [] to leave them out"
        )
    return parts


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
