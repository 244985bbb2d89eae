"""Finds controls by their names and makes null directions with them.

The protocols are in `control_protocols`; `Control` can be imported from both modules.
"""

from typing import TYPE_CHECKING, cast

from demur.core.errors import InputError, WorkError
from demur.core.registry import registry
from demur.directions.controls.control_protocols import Control as Control
from demur.directions.controls.control_protocols import TextControl as TextControl
from demur.directions.controls.orthogonal_twins import SUFFIX, OrthogonalTextTwin, OrthogonalTwin

if TYPE_CHECKING:
    from demur.directions.direction import Direction
    from demur.directions.estimators.estimator import Side
    from demur.inputs.training_texts import TrainingTexts


def control_kind(name: str) -> Control:
    """Find a control.

    Args:
        name: a registered name, or `module:Class`. With `-orthogonal` after it, the control without its part along the direction
            that it is made for.

    Raises:
        InputError: for an unknown name, with the nearest known one; for an object that is not a control, with what it lacks.
    """
    known = registry("control")
    if name.endswith(SUFFIX) and name not in known:
        base: Control = known.get(name.removesuffix(SUFFIX))
        twin = OrthogonalTextTwin(base) if isinstance(base, TextControl) else OrthogonalTwin(base)
        # Its name belongs to the object, because one class makes the twins of all controls.
        return cast(Control, twin)
    found: Control = known.get(name)
    return found


def names_control(name: str) -> bool:
    """Whether a text can be the name of a control in a study: a registered name or `module:Class`, also with `-orthogonal`."""
    known, plain = registry("control"), name.removesuffix(SUFFIX)
    return name in known or plain in known or ":" in plain


def names_like(name: str) -> list[str]:
    """The names of controls for the error about an unknown name; those with `-orthogonal` only if that name has this ending."""
    known = registry("control").names()
    return [name + SUFFIX for name in known] if name.endswith(SUFFIX) else list(known)


def most_controls(kind: str, harmful: "TrainingTexts", harmless: "TrainingTexts") -> int | None:
    """The number of different controls of a kind that can be made for one direction; None if there is no limit.

    Args:
        kind: a name as for `control_kind`.
        harmful: the harmful training instructions.
        harmless: the harmless ones.

    Raises:
        InputError: for an unknown control, and if none can be made from these instructions.
    """
    control = control_kind(kind)
    return control.most(harmful, harmless) if isinstance(control, TextControl) else None


def control_direction(
    kind: str,
    beside: "Direction",
    *,
    name: str,
    seed: int = 0,
    harmful: "Side | None" = None,
    harmless: "Side | None" = None,
    number: int = 0,
) -> "Direction":
    """Make one null direction, and check that it fits the direction it is a control for. All code that makes controls calls this.

    Args:
        kind: a name as for `control_kind`.
        beside: the direction that it is a control for.
        name: the name of the new direction.
        seed: the seed of random numbers, used together with the name.
        harmful: whole harmful training activations at the layer of `beside`, for a control that needs them;
            `demur.measurements.extraction.training_sides` takes them.
        harmless: the harmless ones.
        number: which of the controls of this kind for `beside` it is, from 0. Controls with only so many choices take this one.

    Returns:
        The direction. Its provenance says which direction it is a control for, the cosine with it, and the seed.

    Raises:
        InputError: for an unknown control, and if it needs activations or texts and none are given.
        WorkError: if the control gives a direction with another layer, position, site, width or norm.
    """
    from dataclasses import replace

    control = control_kind(kind)
    if control.needs == "activations":
        _check_sides(control, harmful, harmless)
    if isinstance(control, TextControl):
        made = control.make(beside, name=name, seed=seed, harmful=harmful, harmless=harmless, number=number)
    else:
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
    # Rounded, because the last digits of a sum depend on the machine, and a stored direction should not.
    cosine = round(float(made.vector.double() @ beside.vector.double()), 6) + 0.0
    return replace(made, name=name, provenance=made.provenance.replaced(control_of=beside.name, seed=seed, cosine=cosine))


def _check_sides(control: Control, harmful: "Side | None", harmless: "Side | None") -> None:
    for side in (harmful, harmless):
        if side is None or side.activations is None:
            raise InputError(
                f"the control {control.name!r} needs whole training activations, and none were given; give both sides"
            )
        if isinstance(control, TextControl) and side.texts is None:
            raise InputError(f"the control {control.name!r} needs the training instructions; give both sides with their `texts`")
