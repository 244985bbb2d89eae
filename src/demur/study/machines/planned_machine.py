"""The device that a plan is for: one of this machine's, or one that is only known from its data sheet."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from demur.core.errors import InputError, nearest
from demur.models import memory_budget
from demur.study.machines.data_sheets import DATA_SHEETS, DataSheet

if TYPE_CHECKING:
    from demur.study.throughput import Rates

MEASURED_SECONDS = 0.3
"""How long each of this machine's two rates is measured."""


@dataclass(frozen=True)
class Machine:
    """The device that a plan is for.

    Attributes:
        asked: its name as the user wrote it.
        used: torch's name of it.
        sheet: its data sheet; None for a device of this machine.
    """

    asked: str
    used: str
    sheet: DataSheet | None = None

    @property
    def kind(self) -> str:
        """`cpu` or `cuda`."""
        return memory_budget.kind_of(self.used)

    def free(self) -> int:
        """Bytes of memory that are free now; of a device that is not here, all of its memory."""
        return memory_budget.free(self.asked) if self.sheet is None else self.sheet.memory

    def rates(self, dtype: str) -> "Rates":
        """What it does in a second in a precision: measured now, or the peaks of the data sheet."""
        import torch

        from demur.study.throughput import measure_rates

        if self.sheet is not None:
            return self.sheet.rates(dtype)
        return measure_rates(getattr(torch, dtype), torch.device(self.used), MEASURED_SECONDS)


def machine_of(device: str) -> Machine:
    """The device of a name.

    Args:
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `spread` for this machine, or a name in `DATA_SHEETS`.

    Returns:
        The device.

    Raises:
        InputError: for an unknown name, with the nearest known one, and for a device that this machine does not have.
    """
    from demur.models.device_placement import HERE, find_device  # imports torch

    name = device.lower()
    if name in DATA_SHEETS:
        return Machine(device, "cuda", DATA_SHEETS[name])
    if name.partition(":")[0] not in HERE:
        raise InputError(
            f"{device!r} is not a device of a machine, nor one with a data sheet here; {nearest(name, (*HERE, *DATA_SHEETS))}"
        )
    return Machine(device, str(find_device(device) or find_device("auto")))
