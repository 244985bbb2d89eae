"""`demur.when`: an edit that acts only in rows whose prompt opens a gate."""

from dataclasses import replace

from demur.core.errors import InputError
from demur.interventions.gates.gate import Gate
from demur.interventions.intervention import Intervention


def when(edit: Intervention, gate: Gate) -> Intervention:
    """The same edit, but only in rows whose prompt opens a gate.

    The gate is decided once for each row, from the unedited prompt. Where it is closed, the row is as without this edit.

    Args:
        edit: an edit of any kind.
        gate: the condition.

    Returns:
        The edit, for `demur.generate` and everything that takes many rows. `demur.steer` does not take it.

    Raises:
        InputError: if the edit has a gate already.

    Example:
        >>> import demur, torch
        >>> direction = demur.from_raw(torch.tensor([3.0, 4.0]), name="d", layer=1)
        >>> edit = demur.when(demur.add(direction, 2.0), demur.Gate(direction, threshold=0.1))
        >>> edit.kind, edit.gate.threshold
        ('add', 0.1)
    """
    if edit.gate is not None:
        raise InputError("this edit has a gate already; give the edit without a gate")
    return replace(edit, gate=gate)
