"""The protocols of a control, which makes null directions. They should not carry refusal, and are used like the real direction.

The module of a control is imported as soon as a study names it. Import torch inside `make`, so that reading a study stays fast.
"""

from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from demur.directions.direction import Direction
    from demur.directions.estimators.estimator import Side
    from demur.inputs.training_texts import TrainingTexts


@runtime_checkable
class Control(Protocol):
    """A kind of null direction.

    Attributes:
        name: its name in studies. Its directions are named `name-1`, `name-2`, ...
        needs: what it takes: only the `direction` that it is a control for, or also the training `activations` of its arm.
        null_of: what it is a null for, in a few words: "any direction of this norm".
    """

    name: ClassVar[str]
    needs: ClassVar[Literal["direction", "activations"]]
    null_of: ClassVar[str]

    def make(
        self, beside: "Direction", *, name: str, seed: int, harmful: "Side | None" = None, harmless: "Side | None" = None
    ) -> "Direction":
        """Make a null direction.

        Args:
            beside: the direction that it is a control for.
            name: the name of the new direction.
            seed: the seed of random numbers. The same seed and name give the same direction on every machine.
            harmful: the harmful training activations at the layer of `beside`, if `needs` is `activations`. Their `texts` are the
                instructions.
            harmless: the harmless ones.

        Returns:
            A direction with the layer, site, position, width and raw norm of `beside`.
        """
        ...


@runtime_checkable
class TextControl(Control, Protocol):
    """A control that depends on what the training instructions say, such as their topics. A control need not be one of these."""

    def most(self, harmful: "TrainingTexts", harmless: "TrainingTexts") -> int | None:
        """The number of different directions that it can make for one direction; None if there is no limit.

        A study that asks for more is refused before anything is loaded.

        Args:
            harmful: the harmful training instructions.
            harmless: the harmless ones.

        Raises:
            InputError: if it can make none from these instructions.
        """
        ...

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
        """Make a null direction, as `Control.make` does.

        Args:
            beside: the direction that it is a control for.
            name: the name of the new direction.
            seed: the seed of random numbers.
            harmful: the harmful training activations at the layer of `beside`.
            harmless: the harmless ones.
            number: which of the controls of this kind for `beside` it is, from 0. It is less than `most`.
        """
        ...
