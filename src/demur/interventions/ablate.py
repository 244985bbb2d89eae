"""`ablate`: removes the stream's component along a direction, x' = x - (x.r) r (Arditi et al. 2024, section 2.4)."""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel

from demur.core.edit_words import EditWords
from demur.interventions.edit_kind import expected_of

if TYPE_CHECKING:
    from demur.interventions.intervention import Intervention
    from demur.interventions.operation import Operation


class Ablate:
    """Directional ablation, at every layer and site unless it names others."""

    name: ClassVar[str] = "ablate"
    artefact: ClassVar[Literal["direction", "subspace", "none"]] = "direction"
    takes_dose: ClassVar[bool] = False
    own_layer: ClassVar[bool] = False
    repeats: ClassVar[bool] = False
    default_on: ClassVar[tuple[str, ...]] = ("harmful",)
    settings: ClassVar[type[BaseModel] | None] = None
    words: ClassVar[tuple[EditWords, ...]] = (
        EditWords(
            action="ablate",
            kind="ablate",
            doing="ablating",
            into="in",
            done="ablated",
            moved="ablated from",
            figure="ablated",
            title="Refusal rates with each direction ablated",
        ),
    )

    def action(self, coefficient: float | None) -> str:  # noqa: ARG002
        """Always `ablate`."""
        return "ablate"

    def expected(self, action: str, instructions: str) -> Literal[-1, 0, 1]:  # noqa: ARG002
        """Fewer refusals of harmful instructions."""
        return expected_of(instructions, raises=False)

    def operation(self, edit: "Intervention") -> "Operation":
        """Computes the component along the unit vector and subtracts it."""
        from demur.interventions.operation import LowRank

        return LowRank(read=edit.unit_vector()[None])
