"""`leace`: erases a direction with the least change of the activations, by reading along the whitened direction.

x' = x - (v.(x - m)) r, where r is the direction and v = S^-1 r / (r.S^-1 r). S is the target's own covariance within the classes,
as the estimator `whitened` shrinks it, at the layer and site at which the direction was read. m is the target's mean at the very
point that is edited: over all training instructions, as in the source, or over harmless or harmful ones.

Least-squares concept erasure (Belrose et al. 2023, arXiv 2306.03819, theorem 4.3) for two classes. There r is the difference of
means and S the covariance of all activations; the covariance within the classes gives the same v. At that layer and site, the
means of both classes are then equal, so no linear probe can tell the classes apart. `affine` reads along r itself, which changes
the activations more.
"""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from demur.core.edit_words import EditWords
from demur.core.errors import InputError
from demur.interventions.edit_kind import MEANS, Fact, expected_of

if TYPE_CHECKING:
    from demur.interventions.intervention import Intervention
    from demur.interventions.operation import Operation
    from demur.models.layouts import Point


class LeaceSettings(BaseModel):
    """`to`: whose mean is m: that of all training instructions, `both`, or of `harmless` or `harmful` ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    to: Literal["both", "harmless", "harmful"] = "both"


_ACTIONS = {"both": "leace", "harmless": "leace-to-harmless", "harmful": "leace-to-harmful"}
_MEANS = {"both": "mean of all", "harmless": "harmless mean", "harmful": "harmful mean"}


def _words(to: str) -> EditWords:
    action, mean = _ACTIONS[to], _MEANS[to]
    return EditWords(
        action=action,
        kind="leace",
        doing=f"moving the stream to the {mean} by LEACE along",
        into="in",
        done=f"set to the {mean} by LEACE",
        moved=f"set to the {mean} by LEACE in",
        figure=action,
        title=f"Refusal rates with each direction set to the {mean} by LEACE",
    )


class Leace:
    """Least-squares concept erasure, at every layer and site unless it names others."""

    name: ClassVar[str] = "leace"
    artefact: ClassVar[Literal["direction", "subspace", "none"]] = "direction"
    takes_dose: ClassVar[bool] = False
    own_layer: ClassVar[bool] = False
    repeats: ClassVar[bool] = False
    default_on: ClassVar[tuple[str, ...]] = ("harmful", "harmless")
    settings: ClassVar[type[BaseModel] | None] = LeaceSettings
    words: ClassVar[tuple[EditWords, ...]] = tuple(map(_words, _ACTIONS))

    def action_of(self, coefficient: float | None, settings: LeaceSettings) -> str:  # noqa: ARG002
        """The action that `to` names."""
        return _ACTIONS[settings.to]

    def expected(self, action: str, instructions: str) -> Literal[-1, 0, 1]:
        """The harmful mean should raise refusals of harmless instructions, the other two lower those of harmful ones."""
        return expected_of(instructions, raises=action == "leace-to-harmful")

    def target_facts(self, settings: LeaceSettings) -> tuple[Fact, ...]:
        """How the target's training activations vary, and its means over the instructions that `to` names."""
        means = (*MEANS["harmless"], *MEANS["harmful"]) if settings.to == "both" else MEANS[settings.to]
        return (*means, "spread")

    def operation_at(self, edit: "Intervention", where: "Point") -> "Operation":
        """Reads along v, from the mean at this point, and takes that much of the direction away."""
        import torch

        from demur.interventions.operation import LowRank
        from demur.models.layouts import point

        assert isinstance(edit.settings, LeaceSettings)
        unit, direction = edit.unit_vector(), edit.direction
        assert direction is not None
        if not (direction.says("layer") and direction.says("site")):
            raise InputError(
                f"direction {direction.name!r} comes from a file that does not say its layer and site, at which the covariance "
                "is read; store them with demur convert --layer"
            )
        reader, to = edit.facts.spread(point(direction.layer, direction.site)).reader(unit), edit.settings.to
        if to == "both":
            means = [edit.facts.means("harmful"), edit.facts.means("harmless")]
            level = sum(one.along(reader, where) * one.count for one in means) / sum(one.count for one in means)
        else:
            level = edit.facts.means(to).along(reader, where)
        return LowRank(read=reader[None], write=-unit[None], level=torch.as_tensor(level)[None].float())
