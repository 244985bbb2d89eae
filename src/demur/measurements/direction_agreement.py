"""`direction-agreement`: the cosine between two arms' directions at every layer, with its null, its ceiling and its error."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from demur.core.errors import InputError
from demur.measurements.measurement import ArmSubject, MeasurementRecord, PairSubject, PlannedSubject

if TYPE_CHECKING:
    from demur.measurements.agreement_numbers import Array
    from demur.models.layouts import Site

LEAST = 4
"""The fewest training instructions of a side. With fewer, a half of them has no mean that says anything."""


class AgreementSettings(BaseModel):
    """Settings of `direction-agreement`.

    Attributes:
        draws: how often labels are shuffled for the null.
        splits: how often the instructions are split in halves for the ceiling.
        seed: the seed of both.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    draws: int = Field(default=200, ge=20)
    splits: int = Field(default=100, ge=1)
    seed: int = 0


class DirectionAgreement:
    """The measurement `direction-agreement` of each pair of arms, also of two arms of one checkpoint.

    Two arms agree even on directions that mean nothing, because they read the same instructions. So a cosine is compared with
    those for shuffled labels, and not with those of random directions.
    """

    name: ClassVar[str] = "direction-agreement"
    version: ClassVar[int] = 1
    subjects: ClassVar[Literal["arm", "pair", "cell"]] = "pair"
    same_checkpoint: ClassVar[bool] = True
    settings: ClassVar[type[BaseModel] | None] = AgreementSettings

    def measure(self, subject: PairSubject, settings: AgreementSettings) -> MeasurementRecord:
        """Read the training instructions in both arms, and compare their differences of means at every layer.

        Args:
            subject: the pair of arms.
            settings: numbers of draws.

        Returns:
            The arrays of `Agreement`. The facts are the arms, the site, the position and the numbers of instructions.

        Raises:
            InputError: if the arms have streams of different shapes, or if a side has fewer than four training instructions.
            WorkError: if an activation is not finite.
        """
        from demur.measurements.agreement_numbers import agreement

        arms = (subject.first, subject.second)
        shapes = [(arm.checkpoint.n_layers, arm.checkpoint.d_model) for arm in arms]
        if shapes[0] != shapes[1]:
            raise InputError(f"their streams have different shapes (layers, width), {shapes[0]} and {shapes[1]}")
        sides = [subject.first.train[label] for label in ("harmful", "harmless")]
        if min(map(len, sides)) < LEAST:
            raise InputError(f"it needs at least {LEAST} training instructions of each kind, not {min(map(len, sides))}")
        first, second = (training_activations(arm, *sides) for arm in arms)
        found = agreement(first, second, len(sides[0]), draws=settings.draws, splits=settings.splits, seed=settings.seed)
        facts: dict[str, JsonValue] = {
            "arms": [arm.name for arm in arms],
            "site": subject.first.site,
            "position": subject.first.position,
            "harmful": len(sides[0]),
            "harmless": len(sides[1]),
        }
        return MeasurementRecord(facts, found.arrays())

    def prompts(self, settings: AgreementSettings, planned: PlannedSubject) -> float | int:  # noqa: ARG002
        """The training instructions, which are read once more because each one's activations are needed."""
        return planned.training

    def summary(self, record: MeasurementRecord) -> dict[str, JsonValue]:
        """The cosines by layer, each with the middle 95 % of its null.

        Args:
            record: what `measure` gave.

        Returns:
            Lists with one entry for each layer, which is None where a number is not defined: `cosine`; `corrected` with
            `corrected_ci95`; `null_mean` and `null95` of the cosines for shuffled labels; `p_above`, the share of shuffles with a
            cosine at least as high, (1 + number) / (1 + draws); and `halves`, the mean cosine of two halves of each arm.
        """
        from demur.measurements.agreement_summary import by_layer

        return {**record.facts, **by_layer(record.arrays)}


def training_activations(arm: ArmSubject, harmful: Sequence[str], harmless: Sequence[str]) -> "Array":
    """Activations of training instructions at every layer, where the study reads directions.

    Args:
        arm: the arm.
        harmful: the harmful instructions.
        harmless: the harmless ones.

    Returns:
        (instruction, layer, d_model), the harmful ones first.
    """
    import torch

    from demur.measurements.extraction import training_sides

    sides = training_sides(
        arm.checkpoint,
        harmful,
        harmless,
        arm.prompt,
        layers=range(arm.checkpoint.n_layers),
        needs="activations",
        site=cast("Site", arm.site),
        position=arm.position,
        batch_tokens=arm.batch_tokens,
        progress=arm.progress,
    )
    read: Array = torch.cat([side.activations for side in sides if side.activations is not None]).numpy()
    return read
