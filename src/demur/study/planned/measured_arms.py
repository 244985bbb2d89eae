"""Which arms a measurement is made of, if its settings name checkpoints."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from pydantic import BaseModel

from demur.core.errors import InputError, nearest
from demur.measurements.measurement import Measurement, measurement, reference_of


@runtime_checkable
class OfCheckpoints(Protocol):
    """A measurement of arms that is made of some checkpoints only."""

    def checkpoints(self, settings: Any) -> Sequence[str]:
        """The names of these checkpoints.

        Args:
            settings: as for `measure`.

        Raises:
            InputError: if the settings name none.
        """
        ...


def measures_arm(found: Measurement, settings: BaseModel | None, checkpoint: str) -> bool:
    """Whether a measurement is made of arms of this checkpoint."""
    named = found.checkpoints(settings) if isinstance(found, OfCheckpoints) else (checkpoint,)
    return found.subjects == "arm" and checkpoint in named


def check_checkpoints(asked: Sequence[tuple[str, BaseModel | None]], checkpoints: Sequence[str]) -> None:
    """Check that a study has the checkpoints that the settings of its measurements name.

    Args:
        asked: the measurements by name, with their settings.
        checkpoints: the checkpoints of the study.

    Raises:
        InputError: if it does not.
    """
    for name, settings in asked:
        found = measurement(name)
        reference_of(found, settings, checkpoints)
        named = found.checkpoints(settings) if isinstance(found, OfCheckpoints) else ()
        unknown = next((one for one in named if one not in checkpoints), None)
        if unknown is not None:
            raise InputError(f"the measurement {name} names the checkpoint {unknown!r}; {nearest(unknown, checkpoints)}")
