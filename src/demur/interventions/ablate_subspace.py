"""`subspace`: removes the stream's components in a subspace, or sets them to those of a mean activation of the target.

x' = x - (x B^T - t) B, where the rows of B are an orthonormal basis of k directions. t is 0, or m B^T for the mean m over the
target's harmless or harmful training instructions at the very point that is edited. For k = 1 this is `ablate` and `affine`. A
source for several refusal directions: Wollschlaeger et al. 2025 (arXiv 2502.17420).
"""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from demur.core.edit_words import EditWords
from demur.interventions.edit_kind import MEANS, Fact, expected_of

if TYPE_CHECKING:
    from demur.interventions.intervention import Intervention
    from demur.interventions.operation import Operation
    from demur.models.layouts import Point


class SubspaceSettings(BaseModel):
    """`to`: what the components are set to: `zero`, or those of the mean of `harmless` or of `harmful` training instructions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    to: Literal["zero", "harmless", "harmful"] = "zero"


_ACTIONS = {"zero": "ablate-subspace", "harmless": "affine-subspace", "harmful": "affine-subspace-to-harmful"}


def _words(action: str, doing: str, done: str, moved: str, title: str) -> EditWords:
    return EditWords(
        action=action,
        kind="subspace",
        doing=doing,
        noun="subspace",
        into="in",
        done=done,
        moved=moved,
        figure=action,
        title=title,
    )


class AblateSubspace:
    """Ablation of k directions at once, at every layer and site unless it names others."""

    name: ClassVar[str] = "subspace"
    artefact: ClassVar[Literal["direction", "subspace", "none"]] = "subspace"
    takes_dose: ClassVar[bool] = False
    own_layer: ClassVar[bool] = False
    repeats: ClassVar[bool] = False
    default_on: ClassVar[tuple[str, ...]] = ("harmful", "harmless")
    settings: ClassVar[type[BaseModel] | None] = SubspaceSettings
    words: ClassVar[tuple[EditWords, ...]] = (
        _words(
            "ablate-subspace",
            "ablating",
            "ablated",
            "ablated from",
            "Refusal rates with each subspace ablated",
        ),
        _words(
            "affine-subspace",
            "moving the stream to the harmless mean in",
            "set to the harmless mean",
            "set to the harmless mean in",
            "Refusal rates with each subspace set to the harmless mean",
        ),
        _words(
            "affine-subspace-to-harmful",
            "moving the stream to the harmful mean in",
            "set to the harmful mean",
            "set to the harmful mean in",
            "Refusal rates with each subspace set to the harmful mean",
        ),
    )

    def action_of(self, coefficient: float | None, settings: SubspaceSettings) -> str:  # noqa: ARG002
        """The action that `to` names."""
        return _ACTIONS[settings.to]

    def expected(self, action: str, instructions: str) -> Literal[-1, 0, 1]:
        """The harmful mean should raise refusals of harmless instructions, all else lower those of harmful ones."""
        return expected_of(instructions, raises=action == "affine-subspace-to-harmful")

    def target_facts(self, settings: SubspaceSettings) -> tuple[Fact, ...]:
        """The target's means over the instructions that `to` names; none for zero."""
        return MEANS[settings.to]

    def operation_at(self, edit: "Intervention", where: "Point") -> "Operation":
        """Sets the components along the basis to zero, or to those of the mean at this point."""
        import torch

        from demur.interventions.operation import LowRank

        assert isinstance(edit.settings, SubspaceSettings)
        basis, to = edit.several().basis, edit.settings.to
        if to == "zero":
            return LowRank(read=basis)
        means = edit.facts.means(to)
        return LowRank(read=basis, level=torch.stack([means.along(unit, where) for unit in basis]).float())
