"""`clamp`: limits the stream's component along a direction, and leaves it alone where it is within the limit.

x' = x - max(0, x.r - t) r for a ceiling, x' = x + max(0, t - x.r) r for a floor. The limit t lies between the components of the
target's harmless and harmful means at the very point that is edited. `affine` moves every token position to the harmless mean;
`clamp` moves only those beyond it. Clamping is the usual edit of features of sparse autoencoders (O'Brien et al. 2024, arXiv
2411.11296); here it acts on a direction.
"""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from demur.core.edit_words import EditWords
from demur.interventions.edit_kind import MEANS, Fact, expected_of

if TYPE_CHECKING:
    from torch import Tensor

    from demur.interventions.intervention import Intervention
    from demur.interventions.operation import Operation
    from demur.interventions.stream_means import Label
    from demur.models.layouts import Point


class ClampSettings(BaseModel):
    """The limit.

    Attributes:
        bound: `ceiling`, if the component may be at most the limit, or `floor`, if it may be at least the limit.
        level: where the limit lies: 0 at the component of the harmless mean, 1 at that of the harmful mean; any number between
            or beyond is possible.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    bound: Literal["ceiling", "floor"] = "ceiling"
    level: float = Field(default=0.0, allow_inf_nan=False)


class Clamp:
    """A limit of the component along a direction, at every layer and site unless it names others."""

    name: ClassVar[str] = "clamp"
    artefact: ClassVar[Literal["direction", "subspace", "none"]] = "direction"
    takes_dose: ClassVar[bool] = False
    own_layer: ClassVar[bool] = False
    repeats: ClassVar[bool] = False
    default_on: ClassVar[tuple[str, ...]] = ("harmful", "harmless")
    settings: ClassVar[type[BaseModel] | None] = ClampSettings
    words: ClassVar[tuple[EditWords, ...]] = (
        EditWords(
            action="clamp",
            kind="clamp",
            doing="limiting the stream along",
            into="in",
            done="limited from above",
            moved="limited in",
            figure="clamped",
            title="Refusal rates with each direction limited from above",
        ),
        EditWords(
            action="clamp-from-below",
            kind="clamp",
            doing="limiting the stream from below along",
            into="in",
            done="limited from below",
            moved="limited from below in",
            figure="clamped-from-below",
            title="Refusal rates with each direction limited from below",
        ),
    )

    def action_of(self, coefficient: float | None, settings: ClampSettings) -> str:  # noqa: ARG002
        """`clamp` for a ceiling, `clamp-from-below` for a floor."""
        return "clamp" if settings.bound == "ceiling" else "clamp-from-below"

    def expected(self, action: str, instructions: str) -> Literal[-1, 0, 1]:
        """A ceiling should lower refusals of harmful instructions, a floor raise those of harmless ones."""
        return expected_of(instructions, raises=action == "clamp-from-below")

    def target_facts(self, settings: ClampSettings) -> tuple[Fact, ...]:
        """The target's means over harmless instructions, over harmful ones, or both, depending on the level."""
        if settings.level in (0.0, 1.0):
            return MEANS["harmless" if settings.level == 0 else "harmful"]
        return (*MEANS["harmless"], *MEANS["harmful"])

    def operation_at(self, edit: "Intervention", where: "Point") -> "Operation":
        """Moves the component along the unit vector to the limit where it is beyond."""
        from demur.interventions.operation import Pointwise

        assert isinstance(edit.settings, ClampSettings)
        unit, ceiling, level = edit.unit_vector(), edit.settings.bound == "ceiling", edit.settings.level
        shares: tuple[tuple[Label, float], ...] = (("harmless", 1 - level), ("harmful", level))
        limit = sum(share * float(edit.facts.means(label).along(unit, where)) for label, share in shares if share)

        def clamped(stream: "Tensor") -> "Tensor":
            along = unit.to(stream)
            beyond = stream @ along - limit
            return stream - (beyond.clamp(min=0) if ceiling else beyond.clamp(max=0))[..., None] * along

        return Pointwise(clamped)
