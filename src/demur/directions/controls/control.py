"""The protocol of a control, which makes null directions. They should not carry refusal, and are used like the real direction.

The module of a control is imported as soon as a study names it. Import torch inside `make`, so that reading a study stays fast.
"""

from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, runtime_checkable

from demur.core.errors import InputError, WorkError
from demur.core.registry import registry

if TYPE_CHECKING:
    from demur.directions.direction import Direction
    from demur.directions.estimators.estimator import Side


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
            harmful: the harmful training activations at the layer of `beside`, if `needs` is `activations`.
            harmless: the harmless ones.

        Returns:
            A direction with the layer, site, position, width and raw norm of `beside`.
        """
        ...


def control_kind(name: str) -> Control:
    """Find a control.

    Args:
        name: a registered name, or `module:Class`.

    Raises:
        InputError: for an unknown name, with the nearest known one; for an object that is not a control, with what it lacks.
    """
    found: Control = registry("control").get(name)
    return found


def control_direction(
    kind: str,
    beside: "Direction",
    *,
    name: str,
    seed: int = 0,
    harmful: "Side | None" = None,
    harmless: "Side | None" = None,
) -> "Direction":
    """Make one null direction, and check that it fits the direction it is a control for. All code that makes controls calls this.

    Args:
        kind: a registered control, or `module:Class`.
        beside: the direction that it is a control for.
        name: the name of the new direction.
        seed: the seed of random numbers, used together with the name.
        harmful: whole harmful training activations at the layer of `beside`, for a control that needs them;
            `demur.measurements.extraction.training_sides` takes them.
        harmless: the harmless ones.

    Returns:
        The direction. Its provenance says which direction it is a control for, and the seed.

    Raises:
        InputError: for an unknown control, and if it needs activations and none are given.
        WorkError: if the control gives a direction with another layer, position, site, width or norm.
    """
    from dataclasses import replace

    control = control_kind(kind)
    if control.needs == "activations":
        for side in (harmful, harmless):
            if side is None or side.activations is None:
                raise InputError(
                    f"the control {control.name!r} needs whole training activations, and none were given; give both sides"
                )
    made = control.make(beside, name=name, seed=seed, harmful=harmful, harmless=harmless)
    for fact in ("layer", "position", "site"):
        if getattr(made, fact) != getattr(beside, fact):
            raise WorkError(
                f"the control {control.name!r} gave a direction of {fact} {getattr(made, fact)}; expected that of "
                f"{beside.name!r}, {getattr(beside, fact)}"
            )
    if made.vector.shape != beside.vector.shape or abs(made.raw_norm / beside.raw_norm - 1) > 1e-6:
        raise WorkError(
            f"the control {control.name!r} gave a direction of width {made.vector.shape[0]} and norm {made.raw_norm:.6g}; "
            f"expected those of {beside.name!r}, {beside.vector.shape[0]} and {beside.raw_norm:.6g}"
        )
    return replace(made, name=name, provenance=made.provenance.replaced(control_of=beside.name, seed=seed))
