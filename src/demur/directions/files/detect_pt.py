"""Reads a `.pt` file in the format that its content shows.

One vector is a bare direction, a tensor (position, layer, d_model) is Arditi et al.'s mean differences, and a dict is a file of
lm-evaluation-harness. Anything else is refused.
"""

from pathlib import Path

from torch import Tensor

from demur.core.errors import InputError
from demur.directions.direction import Direction
from demur.directions.files import arditi_direction, arditi_mean_diffs, bare_pt, lm_eval_steering
from demur.directions.files.untrusted_tensors import checked, read_pt


def read(path: Path) -> list[Direction]:
    """The directions of a `.pt` file.

    Raises:
        InputError: for a file that has none.
    """
    loaded = read_pt(path)
    if isinstance(loaded, dict):
        return lm_eval_steering.read(loaded, path)
    if isinstance(loaded, Tensor):
        tensor = checked(loaded, path)
        if tensor.ndim == 1:
            return [
                arditi_direction.read(tensor, path) if path.name == arditi_direction.DIRECTION else bare_pt.read(tensor, path)
            ]
        if tensor.ndim == 3:
            return arditi_mean_diffs.read(tensor, path)
        raise InputError(
            f"{str(path)!r} holds a tensor of shape {tuple(tensor.shape)}; expected one vector (d_model,), or mean "
            "differences (position, layer, d_model)"
        )
    raise InputError(f"{str(path)!r} holds a {type(loaded).__name__}, not a direction: a tensor, or a dict of steering vectors")
