"""`refusal-probability`: measures how likely each cell's target is to refuse, without decoding."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from demur.core.statistics import mean_probability_interval
from demur.measurements.exact_refusal.sampling import MIN_MASS, PROMPTS_A_ROW, JudgeOfBeginnings, Sampling
from demur.measurements.measurement import CellSubject, MeasurementRecord, PlannedSubject

if TYPE_CHECKING:
    from demur.measurements.exact_refusal.refusal_probability import BoundedProbability

ROWS = 1000
"""Cells are measured together until they have this many instructions in all. Then their records are given and stored."""


class ProbabilitySettings(BaseModel):
    """Settings of `refusal-probability`.

    Attributes:
        judge: one that decides by how a completion begins.
        min_mass: beginnings as unlikely as this are not followed.
        instructions: how many instructions of a cell are measured, from the first; all unless given.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    judge: JudgeOfBeginnings = "prefix"
    min_mass: float = Field(default=MIN_MASS, ge=0, lt=1)
    instructions: int | None = Field(default=None, ge=1)


class RefusalProbability:
    """The measurement `refusal-probability` of a cell: for each instruction, how likely a sampled completion is a refusal."""

    name: ClassVar[str] = "refusal-probability"
    version: ClassVar[int] = 1
    subjects: ClassVar[Literal["arm", "pair", "cell"]] = "cell"
    of_nulls: ClassVar[bool] = True
    settings: ClassVar[type[BaseModel] | None] = ProbabilitySettings

    def measure(self, subject: CellSubject, settings: ProbabilitySettings) -> MeasurementRecord:
        """The probabilities of one cell.

        Args:
            subject: the cell.
            settings: the judge, and what is left out.

        Returns:
            Arrays `probability` and `gap`, one number for each instruction: the true probability is between `probability` and
            `probability + gap`. Facts: the judge's `judge_version`, and the length and end of the completions it speaks of.

        Raises:
            InputError: as `demur.refusal_probability`.
            WorkError: as `demur.refusal_probability`.
        """
        return next(self.measure_together([subject], settings))

    def measure_together(self, subjects: Sequence[CellSubject], settings: ProbabilitySettings) -> Iterator[MeasurementRecord]:
        """The probabilities of cells of one arm, which run as rows of the same batches.

        Args:
            subjects: the cells.
            settings: the judge, and what is left out.

        Yields:
            A record for each cell, as `measure` gives it.

        Raises:
            InputError: as `demur.refusal_probability`.
            WorkError: as `demur.refusal_probability`.
        """
        group = list[CellSubject]()
        for subject in (replace(one, instructions=one.instructions[: settings.instructions]) for one in subjects):
            if group and sum(len(one.instructions) for one in (*group, subject)) > ROWS:
                yield from _measured(group, settings)
                group = []
            group.append(subject)
        if group:
            yield from _measured(group, settings)

    def prompts(self, settings: ProbabilitySettings, planned: PlannedSubject) -> float | int:
        """The instructions that are measured."""
        return PROMPTS_A_ROW * sum(min(test, settings.instructions or test) for test in planned.test.values())

    def summary(self, record: MeasurementRecord) -> dict[str, JsonValue]:
        """The mean over instructions with its interval, and how far it may be too low.

        Args:
            record: what `measure` gave.

        Returns:
            `n`; `mean` with `ci95` (None if it has none, as for one instruction); `gap`, the mean gap; `largest_gap` of one
            instruction; and the facts of the record.
        """
        probability, gap = (record.arrays[name].tolist() for name in ("probability", "gap"))
        n = len(probability)
        interval = mean_probability_interval(probability)
        return {
            "n": n,
            "mean": sum(probability) / n,
            "ci95": None if interval is None else list(interval),
            "gap": sum(gap) / n,
            "largest_gap": max(gap),
            **record.facts,
        }


def _measured(cells: Sequence[CellSubject], settings: ProbabilitySettings) -> Iterator[MeasurementRecord]:
    """The records of some cells, all rows together."""
    from demur.core.errors import NotFinite
    from demur.engine.engine_protocol import Row
    from demur.judges.judge import get_judge
    from demur.measurements.exact_refusal.refusal_probability import row_probabilities

    first = cells[0]
    prompts = {texts: first.arm.prompt.encode(texts) for texts in dict.fromkeys(cell.instructions for cell in cells)}
    rows = [Row(tuple(ids), cell.edit) for cell in cells for ids in prompts[cell.instructions]]
    sampling = Sampling(settings.judge, first.max_new_tokens, first.stop_at_eos, settings.min_mass)
    arm = first.arm
    try:
        found = row_probabilities(arm.checkpoint, rows, sampling, batch_tokens=arm.batch_tokens, progress=arm.progress)
    except NotFinite as error:
        instructions = [instruction for cell in cells for instruction in cell.instructions]
        raise error.named(arm.checkpoint.name, instructions[error.row]) from error
    facts: dict[str, JsonValue] = {
        "judge": settings.judge,
        "judge_version": get_judge(settings.judge).version,
        "max_new_tokens": sampling.max_new_tokens,
        "stop_at_eos": sampling.stop_at_eos,
    }
    yield from _records(found, [len(cell.instructions) for cell in cells], facts)


def _records(found: "BoundedProbability", counts: Sequence[int], facts: dict[str, JsonValue]) -> Iterator[MeasurementRecord]:
    start = 0
    for count in counts:
        own = slice(start, start + count)
        arrays = {"probability": found.probability[own].numpy(), "gap": found.gap[own].numpy()}
        yield MeasurementRecord(facts, arrays)
        start += count
