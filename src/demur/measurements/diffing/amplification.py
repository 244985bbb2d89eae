"""`amplification`: refusals if the difference of two checkpoints' logits is weakened, or made larger than training made it."""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, Field, field_validator

from demur.core.errors import WorkError
from demur.measurements.diffing.diff_runs import DiffRun, PairMeasurement, PairSettings, material_of, record_of
from demur.measurements.diffing.written import Written, written_by, written_facts
from demur.measurements.exact_refusal.sampling import PROMPTS_A_ROW
from demur.measurements.measurement import MeasurementRecord, PairSubject, PlannedSubject

if TYPE_CHECKING:
    from torch import Tensor


class AmplificationSettings(PairSettings):
    """Settings of `amplification`.

    Attributes:
        coefficients: a in l_second + a (l_second - l_first): -1 is the earlier checkpoint, 0 the later one. Both are always
        there.
        completions: on how many instructions the mixture also writes greedy completions.
    """

    coefficients: tuple[float, ...] = (-1.0, -0.75, -0.5, -0.25, 0.0, 0.5, 1.0, 2.0, 3.0)
    completions: int = Field(default=4, ge=0)

    @field_validator("coefficients")
    @classmethod
    def _with_both_ends(cls, given: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(sorted({*given, -1.0, 0.0}))


class Amplification(PairMeasurement):
    """The measurement `amplification` of each pair of checkpoints under one prompt format.

    Both checkpoints run the same tokens. The logits of the next token are those of the later checkpoint plus a times their
    difference from the earlier one's. Source: Aranguri and McGrath 2025 (logit-difference amplification); the arithmetic is that
    of contrastive decoding.
    """

    name: ClassVar[str] = "amplification"
    settings: ClassVar[type[BaseModel] | None] = AmplificationSettings

    def measure(self, subject: PairSubject, settings: AmplificationSettings) -> MeasurementRecord:
        """Measure every coefficient. All run over the same passes of both checkpoints.

        Args:
            subject: the pair.
            settings: what is measured.

        Returns:
            The record of `record_of`. The kinds of its runs are `alone`; `amplified`; and `permuted`, a null whose difference has
            its entries permuted over the vocabulary.

        Raises:
            InputError: if the checkpoints do not match.
            WorkError: if the ends are not exactly the two checkpoints.
        """
        from demur.measurements.diffing.pair_probabilities import pair_probabilities

        material = material_of(subject, settings.instructions)
        pair, order = material.pair, permutation(material.pair.vocabulary, settings.seed)
        names = pair.source.name, pair.target.name
        runs = [DiffRun(names[0], names[0]), DiffRun(names[1], names[1])]
        runs += [DiffRun(*names, "amplified", a) for a in settings.coefficients]
        runs += [DiffRun(*names, "permuted", a) for a in settings.coefficients if a not in (-1, 0)]

        def mixtures(logits: "Tensor") -> "Iterator[Tensor]":
            # One after the other, because each is as large as the logits of a run.
            later, earlier = logits
            yield from (later, earlier)
            for run in runs[2:]:
                yield mixed(later, earlier, run.place or 0.0, order if run.kind == "permuted" else None)

        found = pair_probabilities(
            pair,
            material.prompts,
            (None,),
            settings.sampling,
            mixtures=mixtures,
            counted=len(runs),
            progress=subject.second.progress,
        )
        for end, alone in ((-1.0, 1), (0.0, 0)):
            if not found[runs.index(DiffRun(*names, "amplified", end))].probability.equal(found[alone].probability):
                raise WorkError(f"the mixture with coefficient {end:g} is not exactly {names[alone]!r}; report this")
        written: list[Written] = []
        for a in settings.coefficients if settings.completions else ():
            run = DiffRun(pair.source.name, pair.target.name, "amplified", a)
            written += written_by(pair, material, settings, settings.completions, run, mix=partial(_mixture, a=a))
        return record_of(subject, settings, runs, found, **written_facts(written))

    def prompts(self, settings: AmplificationSettings, planned: PlannedSubject) -> float | int:  # noqa: ARG002
        """The instructions once, because all coefficients share the passes."""
        return PROMPTS_A_ROW * settings.instructions


def _mixture(logits: "Tensor", *, a: float) -> "Tensor":
    return mixed(logits[0], logits[1], a)


def mixed(later: "Tensor", earlier: "Tensor", a: float, order: "Tensor | None" = None) -> "Tensor":
    """Logits of a mixture: later + a (later - earlier).

    Args:
        later: the logits of the later checkpoint, (row, vocab).
        earlier: those of the earlier one.
        a: the coefficient. -1 and 0 give exactly the logits of one checkpoint.
        order: for the null, a permutation of the vocabulary by which the difference is reordered.

    Returns:
        The logits in float32 or better. Both are normalised first, so that a constant that is added to all logits changes
        nothing.
    """
    if a == 0:
        return later
    if a == -1 and order is None:
        return earlier
    one, difference = later.float().log_softmax(-1), earlier.float().log_softmax(-1)
    difference.neg_().add_(one)
    if order is not None:
        difference = difference[:, order.to(difference.device)]
    return difference.mul_(a).add_(one)


def permutation(size: int, seed: int) -> "Tensor":
    """A random permutation of the vocabulary."""
    import torch

    return torch.randperm(size, generator=torch.Generator().manual_seed(seed))
