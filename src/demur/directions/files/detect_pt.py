"""Reads a `.pt` file in the format that its content shows.

One vector is a bare direction, also with further axes of length one. A tensor (position, layer, d_model) is Arditi et al.'s mean
differences if the file's name or the metadata of its run say so. A dict of names is a file of lm-evaluation-harness. If the
caller says the axes of a tensor, it is read by them, and so are tensors in a list or in a dict by number. Anything else is
refused.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from demur.core.errors import InputError
from demur.directions.direction import Direction
from demur.directions.files import arditi_direction, arditi_mean_diffs, bare_pt, lm_eval_steering, said_axes
from demur.directions.files.untrusted_tensors import checked, read_pt, whole_number


def read(path: Path, axes: tuple[str, ...] | None = None) -> list[Direction]:
    """The directions of a `.pt` file.

    Args:
        path: the file.
        axes: the axes of its tensor, if the caller says them; see `said_axes`.

    Raises:
        InputError: for a file that has none.
    """
    loaded = read_pt(path)
    if axes is not None and isinstance(loaded, Tensor):
        return said_axes.read(checked(loaded, path), axes, path)
    if axes is not None and isinstance(loaded, list | tuple):
        return said_axes.read(_stacked(loaded, path), axes, path)
    if isinstance(loaded, dict) and all(whole_number(key) and isinstance(one, Tensor) for key, one in loaded.items()) and loaded:
        return said_axes.read_numbered(loaded, axes, path)
    if isinstance(loaded, dict):
        return lm_eval_steering.read(loaded, path)
    if isinstance(loaded, Tensor):
        tensor = checked(loaded, path)
        if tensor.ndim == 3 and (path.name == arditi_mean_diffs.FILE or arditi_direction.choice_for(path) is not None):
            return arditi_mean_diffs.read(tensor, path)
        # A batch axis, for example. With at most one longer axis there is only one way to read the numbers.
        if tensor.ndim > 1 and sum(length > 1 for length in tensor.shape) == 1:
            tensor = tensor.reshape(-1)
        if tensor.ndim == 1:
            return [
                arditi_direction.read(tensor, path) if path.name == arditi_direction.DIRECTION else bare_pt.read(tensor, path)
            ]
        raise InputError(
            f"{str(path)!r} holds a tensor of shape {tuple(tensor.shape)}; expected one vector (d_model,), or mean differences "
            f"(position, layer, d_model) in a file called {arditi_mean_diffs.FILE} or beside their {arditi_direction.METADATA}; "
            "say what the axes are with axes=..., or in demur convert with --axes, such as layer,1,d_model"
        )
    way_out = (
        "; say the axes of its tensors, the place in the list first, such as layer,d_model"
        if isinstance(loaded, list | tuple)
        else ""
    )
    raise InputError(
        f"{str(path)!r} holds a {type(loaded).__name__}, not a direction: a tensor, or a dict of steering vectors{way_out}"
    )


def _stacked(loaded: Sequence[object], path: Path) -> Tensor:
    """Tensors of one shape as one tensor; their place in the list is its first axis."""
    tensors = [checked(one, path, f"tensor {number}") for number, one in enumerate(loaded)]
    shapes = sorted({tuple(one.shape) for one in tensors})
    if len(shapes) != 1:
        raise InputError(f"{str(path)!r} holds a list of tensors of shapes {shapes}; expected tensors of one shape")
    return torch.stack(tensors)
