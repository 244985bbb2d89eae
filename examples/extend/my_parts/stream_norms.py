"""A measurement of each arm: the mean norm of the stream at every layer, over held-out harmful instructions."""

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from demur.measurements.measurement import ArmSubject, MeasurementRecord


class NormSettings(BaseModel):
    """`position`: the prompt position that is read, counted from the end."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    position: int = -1


class StreamNorms:
    """The mean norm of the stream at the input of every layer."""

    name: ClassVar[str] = "norms"
    version: ClassVar[int] = 1
    subjects: ClassVar[Literal["arm", "pair", "cell"]] = "arm"
    settings: ClassVar[type[BaseModel] | None] = NormSettings

    def measure(self, subject: ArmSubject, settings: NormSettings) -> MeasurementRecord:
        """One number a layer."""
        from demur import mean_activations

        checkpoint = subject.checkpoint
        means = mean_activations(
            checkpoint,
            subject.held_out["harmful"],
            subject.prompt,
            layers=range(checkpoint.n_layers),
            position=settings.position,
        )
        return MeasurementRecord(arrays={"norms": means.mean_norm.numpy()})

    def summary(self, record: MeasurementRecord) -> dict[str, JsonValue]:
        """The norms, rounded to four decimals."""
        return {"norms": [round(float(norm), 4) for norm in record.arrays["norms"]]}
