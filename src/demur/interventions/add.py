"""`add`: adds a multiple of a direction, x' = x + c r (Arditi et al. 2024, section 2.4)."""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel

from demur.core.edit_words import EditWords
from demur.interventions.edit_kind import expected_of

if TYPE_CHECKING:
    from demur.interventions.intervention import Intervention
    from demur.interventions.operation import Operation


class Add:
    """Activation addition, at the direction's own layer and site unless it names others. A negative coefficient subtracts."""

    name: ClassVar[str] = "add"
    artefact: ClassVar[Literal["direction", "subspace", "none"]] = "direction"
    takes_dose: ClassVar[bool] = True
    own_layer: ClassVar[bool] = True
    repeats: ClassVar[bool] = True
    default_on: ClassVar[tuple[str, ...]] = ("harmful", "harmless")
    settings: ClassVar[type[BaseModel] | None] = None
    words: ClassVar[tuple[EditWords, ...]] = (
        EditWords(
            action="add",
            kind="add",
            doing="adding",
            into="to",
            done="added",
            moved="added to",
            figure="added",
            title="Refusal rates with each direction added",
            own_layer=True,
        ),
        EditWords(
            action="subtract",
            kind="add",
            doing="adding a negative multiple of",
            into="to",
            done="added",
            moved="added to",
            figure="added",
            title="Refusal rates with each direction added",
            own_layer=True,
        ),
    )

    def action(self, coefficient: float | None) -> str:
        """`subtract` for a negative coefficient, else `add`."""
        return "subtract" if coefficient is not None and coefficient < 0 else "add"

    def expected(self, action: str, instructions: str) -> Literal[-1, 0, 1]:
        """Adding should raise refusals of harmless instructions, subtracting should lower those of harmful ones."""
        return expected_of(instructions, raises=action == "add")

    def operation(self, edit: "Intervention") -> "Operation":
        """Adds the same vector at every position: the unit vector times the coefficient and the length of its unit."""
        from demur.interventions.operation import LowRank

        return LowRank(offset=edit.scaled_vector())
