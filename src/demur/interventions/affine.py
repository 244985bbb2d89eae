"""`affine`: sets the stream's component along a direction to that of a mean activation of the target, at each point its own.

x' = x - (x.r) r + (m.r) r, where m is the mean over the target's harmless training instructions, or over its harmful ones, at the
very point that is edited. Affine concept editing (Marshall, Scherlis and Belrose 2024, arXiv 2411.09003) with the harmless mean
(there alpha = 0) or the harmful mean (alpha = 1). The paper edits one layer; this kind edits every layer and site by default.
"""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from demur.core.edit_words import EditWords
from demur.interventions.edit_kind import MEANS, Fact, expected_of

if TYPE_CHECKING:
    from demur.interventions.intervention import Intervention
    from demur.interventions.operation import Operation
    from demur.models.layouts import Point


class AffineSettings(BaseModel):
    """`to`: whose mean the component is set to, that of `harmless` or of `harmful` training instructions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    to: Literal["harmless", "harmful"] = "harmless"


class Affine:
    """Affine ablation, at every layer and site unless it names others."""

    name: ClassVar[str] = "affine"
    artefact: ClassVar[Literal["direction", "subspace", "none"]] = "direction"
    takes_dose: ClassVar[bool] = False
    own_layer: ClassVar[bool] = False
    repeats: ClassVar[bool] = False
    default_on: ClassVar[tuple[str, ...]] = ("harmful", "harmless")
    settings: ClassVar[type[BaseModel] | None] = AffineSettings
    words: ClassVar[tuple[EditWords, ...]] = (
        EditWords(
            action="affine",
            kind="affine",
            doing="moving the stream to the harmless mean along",
            into="in",
            done="set to the harmless mean",
            moved="set to the harmless mean in",
            figure="affine",
            title="Refusal rates with each direction set to the harmless mean",
        ),
        EditWords(
            action="affine-to-harmful",
            kind="affine",
            doing="moving the stream to the harmful mean along",
            into="in",
            done="set to the harmful mean",
            moved="set to the harmful mean in",
            figure="affine-to-harmful",
            title="Refusal rates with each direction set to the harmful mean",
        ),
    )

    def action_of(self, coefficient: float | None, settings: AffineSettings) -> str:  # noqa: ARG002
        """`affine-to-harmful` for the harmful mean, else `affine`."""
        return "affine" if settings.to == "harmless" else "affine-to-harmful"

    def expected(self, action: str, instructions: str) -> Literal[-1, 0, 1]:
        """The harmless mean should lower refusals of harmful instructions, the harmful mean raise those of harmless ones."""
        return expected_of(instructions, raises=action == "affine-to-harmful")

    def target_facts(self, settings: AffineSettings) -> tuple[Fact, ...]:
        """The target's means over the instructions that `to` names."""
        return MEANS[settings.to]

    def operation_at(self, edit: "Intervention", where: "Point") -> "Operation":
        """Sets the component along the unit vector to that of the mean at this point."""
        from demur.interventions.operation import LowRank

        assert isinstance(edit.settings, AffineSettings)
        unit = edit.unit_vector()
        level = edit.facts.means(edit.settings.to).along(unit, where)
        return LowRank(read=unit[None], level=level[None].float())
