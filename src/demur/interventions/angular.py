"""`angular`: turns the stream's part in a plane to a stated angle, and keeps its length.

With b1 the first direction and b2 the part of the second that is orthogonal to it, p = (x.b1, x.b2) and a the angle:
x' = x - (x.b1) b1 - (x.b2) b2 + |p| (cos(a) b1 + sin(a) b2). The norm of the stream does not change. Source: angular steering (Vu
and Nguyen 2025, arXiv 2510.26243), which takes the difference of means for b1.
"""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from demur.core.edit_words import EditWords
from demur.core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from demur.interventions.intervention import Intervention
    from demur.interventions.operation import Operation


class AngularSettings(BaseModel):
    """Where the part of the stream in the plane is turned to.

    Attributes:
        angle: the angle to the first direction in degrees, towards the second. 0 is along the first direction, 180 against it.
        only_along: whether only token positions are turned whose component along the first direction is positive.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    angle: float = Field(default=180.0, allow_inf_nan=False)
    only_along: bool = False


class Angular:
    """Turning in the plane of two directions, at every layer and site unless it names others."""

    name: ClassVar[str] = "angular"
    artefact: ClassVar[Literal["direction", "subspace", "none"]] = "subspace"
    takes_dose: ClassVar[bool] = False
    own_layer: ClassVar[bool] = False
    repeats: ClassVar[bool] = False
    default_on: ClassVar[tuple[str, ...]] = ("harmful", "harmless")
    settings: ClassVar[type[BaseModel] | None] = AngularSettings
    words: ClassVar[tuple[EditWords, ...]] = (
        EditWords(
            action="angular",
            kind="angular",
            doing="turning the stream in",
            noun="plane",
            into="in",
            done="turned",
            moved="turned in",
            figure="angular",
            title="Refusal rates with the stream turned in each plane",
        ),
    )

    def action(self, coefficient: float | None) -> str:  # noqa: ARG002
        """Always `angular`."""
        return "angular"

    def expected(self, action: str, instructions: str) -> Literal[-1, 0, 1]:  # noqa: ARG002
        """None, because it depends on the angle."""
        return 0

    def operation(self, edit: "Intervention") -> "Operation":
        """Replaces the part in the plane by one of the same length at the angle."""
        import torch

        from demur.interventions.operation import Pointwise

        assert isinstance(edit.settings, AngularSettings)
        if len(edit.several()) != 2:
            raise InputError(f"an edit of kind 'angular' turns in the plane of two directions, not of {len(edit.several())}")
        basis, only_along = edit.several().basis, edit.settings.only_along
        angle = torch.deg2rad(torch.tensor(edit.settings.angle, dtype=torch.float64))
        target = (torch.stack([angle.cos(), angle.sin()]) @ basis.double()).float()

        def turned(stream: "Tensor") -> "Tensor":
            plane = basis.to(stream)
            part = stream @ plane.T
            length = part.norm(dim=-1, keepdim=True)
            changed = stream - part @ plane + length * target.to(stream)
            return torch.where(part[..., :1] > 0, changed, stream) if only_along else changed

        return Pointwise(turned)
