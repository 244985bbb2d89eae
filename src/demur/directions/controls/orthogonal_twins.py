"""Controls with the ending `-orthogonal`: the same null direction without its part along the direction that it is made for.

A structured null can resemble the real direction, because both come from the same activations. What its twin does is not due to
this resemblance.
"""

from typing import TYPE_CHECKING, Literal

from demur.core.errors import WorkError

if TYPE_CHECKING:
    from demur.directions.controls.control_protocols import Control, TextControl
    from demur.directions.direction import Direction
    from demur.directions.estimators.estimator import Side
    from demur.inputs.training_texts import TrainingTexts

SUFFIX = "-orthogonal"
"""The ending of a control's name that asks for the orthogonal twins of its directions."""

_NOTHING_LEFT = 1e-4
"""A direction of which a smaller share than this is left is rounding error."""


class OrthogonalTwin:
    """The orthogonal twin of a control. `topics-orthogonal-3` is `topics-3` without its part along the direction beside it."""

    def __init__(self, base: "Control") -> None:
        self._base = base
        self.name = base.name + SUFFIX
        self.needs: Literal["direction", "activations"] = base.needs
        self.null_of = f"{base.null_of}, without the part along the direction itself"

    def make(
        self, beside: "Direction", *, name: str, seed: int, harmful: "Side | None" = None, harmless: "Side | None" = None
    ) -> "Direction":
        """Make the control's direction and take its part along `beside` away.

        Raises:
            WorkError: if nothing is left, because the control's direction is `beside` itself.
        """
        made = self._base.make(beside, name=self._twin(name), seed=seed, harmful=harmful, harmless=harmless)
        return self._without_part_along(beside, made, name)

    def _twin(self, name: str) -> str:
        """The name of the control's own direction, under which the twin is drawn."""
        return self._base.name + name.removeprefix(self.name) if name.startswith(self.name) else name

    def _without_part_along(self, beside: "Direction", made: "Direction", name: str) -> "Direction":
        from demur.directions.direction import from_raw

        along = beside.vector.double() / beside.vector.double().norm()
        rest = made.vector.double() - (made.vector.double() @ along) * along
        # Once more, for the rounding error of the first time.
        rest = rest - (rest @ along) * along
        if float(rest.norm()) < _NOTHING_LEFT:
            raise WorkError(
                f"the control {made.name!r} is the direction {beside.name!r} itself, so nothing orthogonal to it is left; leave "
                f"{self.name!r} out"
            )
        method = f"{made.provenance.method or self._base.name}, orthogonal to {beside.name}"
        return from_raw(
            rest / rest.norm() * beside.raw_norm,
            name=name,
            layer=beside.layer,
            position=beside.position,
            site=beside.site,
            provenance=made.provenance.replaced(method=method),
        )


class OrthogonalTextTwin(OrthogonalTwin):
    """The orthogonal twin of a control that depends on the texts of the instructions."""

    def __init__(self, base: "TextControl") -> None:
        super().__init__(base)
        self._text_base = base

    def most(self, harmful: "TrainingTexts", harmless: "TrainingTexts") -> int | None:
        """The number of different directions that the control can make for one direction; None if there is no limit."""
        return self._text_base.most(harmful, harmless)

    def make(
        self,
        beside: "Direction",
        *,
        name: str,
        seed: int,
        harmful: "Side | None" = None,
        harmless: "Side | None" = None,
        number: int = 0,
    ) -> "Direction":
        """As `OrthogonalTwin.make`, for the control with this number."""
        twin = self._twin(name)
        made = self._text_base.make(beside, name=twin, seed=seed, harmful=harmful, harmless=harmless, number=number)
        return self._without_part_along(beside, made, name)
