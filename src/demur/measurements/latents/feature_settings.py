"""The settings of `features`: which sparse autoencoder belongs to which checkpoint, and what is measured of it."""

from pydantic import BaseModel, ConfigDict, Field, JsonValue, SerializerFunctionWrapHandler, field_validator, model_serializer

from demur.measurements.diffing.diff_runs import PairSettings

LABELS = ("harmful", "harmless")
"""The instructions that are looked at, in the order of arrays."""


class SaeSettings(BaseModel):
    """One sparse autoencoder.

    Attributes:
        checkpoint: the study's checkpoint whose stream it reads.
        file: its file; see `read_autoencoder`.
        layer: the block after whose output it reads the stream, from 0; only needed if its files do not say it.
        k: how many latents are active at a token; only needed for a file of Qwen-Scope whose path does not say it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    checkpoint: str
    file: str
    layer: int | None = Field(default=None, ge=0)
    k: int | None = Field(default=None, ge=1)

    @model_serializer(mode="wrap")
    def _said_only(self, written: SerializerFunctionWrapHandler) -> dict[str, JsonValue]:
        # A study is stored as TOML, which has no null.
        return {name: value for name, value in written(self).items() if value is not None}


class FeatureSettings(PairSettings):
    """Settings of `features`.

    Attributes:
        saes: the autoencoders, at most one for each checkpoint.
        nearest: how many latents are listed whose decoder rows point most along the direction, and most against it.
        clamped: how many latents are clamped together.
        values: what they are set to, one value after the other.
        nulls: how many sets of random latents there are beside each clamped set.
        draws: how many random directions, and how many for shuffled labels, there are for the nulls of the cosines.
        steps: points on the path of the attribution.
        completions: on how many instructions the edited checkpoint also writes greedy completions.
    """

    saes: tuple[SaeSettings, ...] = ()
    nearest: int = Field(default=10, ge=1)
    clamped: int = Field(default=5, ge=1)
    values: tuple[float, ...] = Field(default=(0.0,), min_length=1)
    nulls: int = Field(default=20, ge=20)
    draws: int = Field(default=200, ge=20)
    steps: int = Field(default=10, ge=1)
    completions: int = Field(default=4, ge=0)

    @field_validator("saes")
    @classmethod
    def _one_each(cls, given: tuple[SaeSettings, ...]) -> tuple[SaeSettings, ...]:
        names = [one.checkpoint for one in given]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two autoencoders are named for the checkpoint {twice!r}; name one for each checkpoint")
        return given

    @field_validator("values")
    @classmethod
    def _differ(cls, given: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(dict.fromkeys(given))

    def of(self, checkpoint: str) -> SaeSettings | None:
        """The autoencoder of a checkpoint; None if it has none."""
        return next((one for one in self.saes if one.checkpoint == checkpoint), None)
