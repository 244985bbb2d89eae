"""What a control is: a null direction, which means nothing about refusal and is treated like one that should mean something.

The module of a control is imported when a study names it, before anything heavy: import torch inside `make`, not above it.
"""

from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, runtime_checkable

from demur.core.registry import registry

if TYPE_CHECKING:
    from demur.directions.direction import Direction
    from demur.directions.estimators.estimator import Side


@runtime_checkable
class Control(Protocol):
    """A kind of null direction.

    Attributes:
        name: how studies call it. Its directions are named `name-1`, `name-2`, ...
        needs: what it takes: the `direction` that it stands beside alone, or also the training `activations` of that arm.
        null_of: what it is a null for, in a few words: "any direction of this norm".
    """

    name: ClassVar[str]
    needs: ClassVar[Literal["direction", "activations"]]
    null_of: ClassVar[str]

    def make(
        self, beside: "Direction", *, name: str, seed: int, harmful: "Side | None" = None, harmless: "Side | None" = None
    ) -> "Direction":
        """A null direction at the place of `beside`, of its raw norm.

        The same seed and name give the same direction on every machine. `harmful` and `harmless` hold one layer, that of
        `beside`, and are given where `needs` says `activations`.
        """
        ...


def control_kind(name: str) -> Control:
    """The control of a name, or of `module:Class`.

    Raises:
        InputError: for an unknown name, with the nearest known one.
    """
    found: Control = registry("control").get(name)
    return found
