"""What the measurements of a pair have in common: their settings, the runs that they measure, and the records of these."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from demur.core.errors import InputError
from demur.measurements.exact_refusal.sampling import JudgeOfBeginnings, Sampling
from demur.measurements.measurement import MeasurementRecord, PairSubject

if TYPE_CHECKING:
    from demur.engine.lockstep.matched_pair import MatchedPair
    from demur.measurements.exact_refusal.refusal_probability import BoundedProbability

ALONE = "alone"
"""The kind of a run of one checkpoint as it is."""


class PairInstructions(BaseModel):
    """Settings that all measurements of pairs share.

    Attributes:
        instructions: how many held-out instructions are measured, from the first.
        max_new_tokens: the length of a completion, in tokens.
        seed: the seed of the nulls.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    instructions: int = Field(default=16, ge=2)
    max_new_tokens: int = Field(default=16, ge=1)
    seed: int = 0


class PairSettings(PairInstructions):
    """Settings of measurements of the probability of a refusal in runs of a pair.

    Attributes:
        judge: one that decides by how a completion begins, as `refusal-probability` needs it.
        min_mass: beginnings as unlikely as this are not followed.
    """

    judge: JudgeOfBeginnings = "prefix"
    min_mass: float = Field(default=0.01, ge=0, lt=1)

    @property
    def sampling(self) -> Sampling:
        """What the probability is one of."""
        return Sampling(self.judge, self.max_new_tokens, True, self.min_mass)


class PairMeasurement:
    """What measurements of pairs have in common: both checkpoints get the same tokens."""

    version: ClassVar[int] = 1
    subjects: ClassVar[Literal["arm", "pair", "cell"]] = "pair"
    one_format: ClassVar[bool] = True

    def summary(self, record: MeasurementRecord) -> dict[str, JsonValue]:
        """The mean probability of a refusal in each run.

        Args:
            record: what `measure` gave.

        Returns:
            See `summary_of`. The texts of completions are left out.
        """
        return {name: value for name, value in summary_of(record).items() if name != "written_text"}


@dataclass(frozen=True)
class DiffRun:
    """One way of running a pair.

    Attributes:
        source: the checkpoint that something is taken from.
        target: the checkpoint that it is put into.
        kind: what is done, such as `stream`; `alone` for a checkpoint as it is.
        place: where or how much: a layer, a coefficient; None if the kind has no place.
    """

    source: str
    target: str
    kind: str = ALONE
    place: float | int | None = None


@dataclass(frozen=True, eq=False)
class PairMaterial:
    """The pair and its prompts.

    Attributes:
        pair: the checkpoints: the earlier one of the study is the target, the later one the source.
        texts: the instructions.
        prompts: their token ids, the same for both checkpoints.
    """

    pair: "MatchedPair"
    texts: tuple[str, ...]
    prompts: tuple[tuple[int, ...], ...]


def material_of(subject: PairSubject, instructions: int, label: str = "harmful") -> PairMaterial:
    """The pair of a subject with its prompts.

    Args:
        subject: the pair of arms.
        instructions: how many held-out instructions are used, from the first.
        label: which instructions.

    Raises:
        InputError: if the checkpoints do not match, or a prompt has a token that one of them lacks.
    """
    from demur.engine.lockstep.matched_pair import matched_pair

    pair = matched_pair(subject.second.checkpoint, subject.first.checkpoint)
    prompt, texts = subject.second.prompt, subject.second.held_out[label][:instructions]
    prompts = tuple(tuple(ids) for ids in prompt.encode(texts))
    rows = min(pair.vocabulary, *(one.embedding_rows or pair.vocabulary for one in (pair.source, pair.target)))
    for ids in prompts:
        if max(ids) >= rows:
            raise InputError(
                f"the prompt format {prompt.name!r} uses token {max(ids)}, but one of the checkpoints has only tokens 0 to "
                f"{rows - 1}; give a format whose tokens both have"
            )
    return PairMaterial(pair, texts, prompts)


def record_of(
    subject: PairSubject,
    settings: PairSettings,
    runs: Sequence[DiffRun],
    found: "Sequence[BoundedProbability]",
    **facts: JsonValue,
) -> MeasurementRecord:
    """The record of some runs.

    Args:
        subject: the pair of arms.
        settings: the settings.
        runs: the runs.
        found: the probability of a refusal for each instruction in each run.
        **facts: further facts.

    Returns:
        Arrays `probability` and `gap`, (run, instruction). The facts name the pair, its prompt format and the judge; `source`,
        `target`, `kind` and `place` have one entry for each run.
    """
    import torch

    from demur.judges.judge import get_judge

    shared: dict[str, JsonValue] = {
        "first": subject.first.checkpoint.name,
        "second": subject.second.checkpoint.name,
        "prompt": subject.second.prompt.name,
        "judge": settings.judge,
        "judge_version": get_judge(settings.judge).version,
        "source": [run.source for run in runs],
        "target": [run.target for run in runs],
        "kind": [run.kind for run in runs],
        "place": [run.place for run in runs],
    }
    arrays = {
        "probability": torch.stack([one.probability for one in found]).numpy(),
        "gap": torch.stack([one.gap for one in found]).numpy(),
    }
    return MeasurementRecord({**shared, **facts}, arrays)


def summary_of(record: MeasurementRecord) -> dict[str, JsonValue]:
    """The mean probability of a refusal in each run, for `summary.json`.

    Args:
        record: a record that `record_of` made.

    Returns:
        The facts, with lists that have one entry for each run: `mean`, the mean over instructions, and `gap`, how far it may be
        too low; and `n`, the number of instructions.
    """
    means, gaps = (record.arrays[name].mean(axis=1).tolist() for name in ("probability", "gap"))
    return {**record.facts, "n": int(record.arrays["probability"].shape[1]), "mean": means, "gap": gaps}
