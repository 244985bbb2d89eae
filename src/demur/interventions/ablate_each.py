"""`ablate-each`: at each layer, removes the component along the direction that was read at that layer.

x' = x - (x.r) r with the r of the layer. Ablation at every layer (Arditi et al. 2024) uses the direction of one layer everywhere,
although the difference of means turns from layer to layer. Abliteration "per layer" (heretic) does the same to weights.
"""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from demur.core.edit_words import EditWords
from demur.core.errors import InputError
from demur.interventions.edit_kind import MEANS, Fact, Span, expected_of

if TYPE_CHECKING:
    from demur.directions.direction import Direction
    from demur.directions.subspace import Subspace
    from demur.interventions.intervention import Intervention
    from demur.interventions.operation import Operation
    from demur.models.layouts import Point


class EachSettings(BaseModel):
    """`to`: what each component is set to: `zero`, or that of the mean of `harmless` or of `harmful` training instructions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    to: Literal["zero", "harmless", "harmful"] = "zero"


_DONE = {"zero": "ablated", "harmless": "set to the harmless mean", "harmful": "set to the harmful mean"}


def _words(to: str, action: str) -> EditWords:
    doing = {"zero": "ablating", "harmless": "moving the stream to the harmless mean along"}
    return EditWords(
        action=action,
        kind="ablate-each",
        doing=doing.get(to, "moving the stream to the harmful mean along"),
        noun="directions of all layers",
        into="in",
        done=_DONE[to],
        moved="ablated from" if to == "zero" else f"{_DONE[to]} in",
        figure=action,
        title=f"Refusal rates with each layer's own direction {_DONE[to]}",
    )


_ACTIONS = {"zero": "ablate-each", "harmless": "affine-each", "harmful": "affine-each-to-harmful"}


class AblateEach:
    """Ablation of each layer's own direction, at every layer and site unless it names others."""

    name: ClassVar[str] = "ablate-each"
    artefact: ClassVar[Literal["direction", "subspace", "none"]] = "subspace"
    span: ClassVar[Span] = "layers"
    takes_dose: ClassVar[bool] = False
    own_layer: ClassVar[bool] = False
    repeats: ClassVar[bool] = False
    default_on: ClassVar[tuple[str, ...]] = ("harmful", "harmless")
    settings: ClassVar[type[BaseModel] | None] = EachSettings
    words: ClassVar[tuple[EditWords, ...]] = tuple(_words(to, action) for to, action in _ACTIONS.items())

    def action_of(self, coefficient: float | None, settings: EachSettings) -> str:  # noqa: ARG002
        """The action that `to` names."""
        return _ACTIONS[settings.to]

    def expected(self, action: str, instructions: str) -> Literal[-1, 0, 1]:
        """The harmful mean should raise refusals of harmless instructions, all else lower those of harmful ones."""
        return expected_of(instructions, raises=action == "affine-each-to-harmful")

    def target_facts(self, settings: EachSettings) -> tuple[Fact, ...]:
        """The target's means over the instructions that `to` names; none for zero."""
        return MEANS[settings.to]

    def operation_at(self, edit: "Intervention", where: "Point") -> "Operation":
        """Sets the component along the direction of this point's layer to zero, or to that of the mean at this point."""
        from demur.interventions.operation import LowRank

        assert isinstance(edit.settings, EachSettings)
        unit, to = of_layer(edit.several(), where.layer).vector, edit.settings.to
        level = None if to == "zero" else edit.facts.means(to).along(unit, where)[None].float()
        return LowRank(read=unit[None], level=level)


def of_layer(several: "Subspace", layer: int) -> "Direction":
    """The direction that was read at a layer.

    A layer may have none, as the first one and the point after the last block. It then gets that of the nearest layer before it
    that has one, or else that of the first layer that has one.

    Raises:
        InputError: if two of the directions were read at one layer, and if the layer of one is not known.
    """
    by_layer: dict[int, Direction] = {}
    for one in several.directions:
        if not one.says("layer") or one.layer in by_layer:
            found = f"two directions of layer {one.layer}" if one.says("layer") else f"direction {one.name!r}, without a layer"
            raise InputError(
                f"the kind of edit 'ablate-each' takes one direction for each layer, but found {found}; leave it out"
            )
        by_layer[one.layer] = one
    return by_layer[max((own for own in by_layer if own <= layer), default=min(by_layer))]
