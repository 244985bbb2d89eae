"""A kind of edit: the stream's component along a direction is multiplied by a factor. A factor of 0 is ablation."""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from demur.core.edit_words import EditWords

if TYPE_CHECKING:
    from demur.interventions.intervention import Intervention
    from demur.interventions.operation import Operation


class ScaleSettings(BaseModel):
    """`factor`: what the component is multiplied by."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    factor: float = 0.5


class Scale:
    """x' = x + (factor - 1) (x.r) r, at every layer and site unless a study names others."""

    name: ClassVar[str] = "scale"
    artefact: ClassVar[Literal["direction", "subspace", "none"]] = "direction"
    takes_dose: ClassVar[bool] = False
    own_layer: ClassVar[bool] = False
    repeats: ClassVar[bool] = False
    default_on: ClassVar[tuple[str, ...]] = ("harmful",)
    settings: ClassVar[type[BaseModel] | None] = ScaleSettings
    words: ClassVar[tuple[EditWords, ...]] = (
        EditWords(
            action="scale",
            kind="scale",
            doing="scaling",
            into="in",
            done="scaled",
            moved="scaled in",
            figure="scaled",
            title="Refusal rates with each direction scaled",
        ),
    )

    def action(self, coefficient: float | None) -> str:
        """The one action of this kind."""
        return "scale"

    def expected(self, action: str, instructions: str) -> Literal[-1, 0, 1]:
        """Fewer refusals of harmful instructions would confirm it."""
        return -1 if instructions == "harmful" else 0

    def operation(self, edit: "Intervention") -> "Operation":
        """Reads along the unit vector, and writes (factor - 1) times what was read."""
        from demur.interventions.operation import LowRank

        unit = edit.unit_vector()[None]
        return LowRank(read=unit, write=unit * (edit.settings.factor - 1))
