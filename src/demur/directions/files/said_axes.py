"""A tensor of several vectors in a `.pt` file, whose axes the caller says, because the file does not.

Programs stack vectors in any order: one a layer (d_model last, or first), with a batch axis of length 1, by layer and position,
or as transformers' `hidden_states`. A guess would name wrong layers without a sign.
"""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from demur.core.errors import InputError, nearest
from demur.directions.direction import Direction, from_raw
from demur.directions.files.bare_pt import is_unit
from demur.directions.files.untrusted_tensors import checked
from demur.directions.provenance import Provenance
from demur.models.layouts import Site

_LAYERS = ("layer", "layer_output", "hidden_state")
AXES = (*_LAYERS, "position", "d_model", "1")
"""The names of axes. `layer` counts the inputs of blocks from 0, and `layer_output` their outputs. `hidden_state` counts inputs
too; its last entry comes after the final norm and is left out. `position` ends with the last token of the prompt. `1` is an axis
of length one without a meaning."""


def parse_axes(text: str) -> tuple[str, ...]:
    """The axes in a text such as "layer,1,d_model".

    Raises:
        InputError: for an unknown name, a name that is there twice, and axes without `d_model`.
    """
    axes = tuple(name.strip() for name in text.split(","))
    for name in axes:
        if name not in AXES:
            raise InputError(f"{name!r} is not the name of an axis; {nearest(name, AXES)}")
        if name != "1" and axes.count(name) > 1:
            raise InputError(f"the axes {text!r} have {name} twice")
    if "d_model" not in axes or sum(name in axes for name in _LAYERS) > 1:
        raise InputError(f"the axes {text!r} must have d_model, and may have one of {', '.join(_LAYERS)}, position, and 1")
    return axes


def read(tensor: Tensor, axes: tuple[str, ...], path: Path) -> list[Direction]:
    """The directions of a tensor. Vectors of zeros are left out.

    Args:
        tensor: any number of axes.
        axes: their names.
        path: the file.

    Returns:
        The directions in the order of positions and layers. Without an axis of layers, layer and site are not known; without an
        axis of positions, the position is not known.

    Raises:
        InputError: if the tensor has other axes, or only zeros.
    """
    shape = tuple(tensor.shape)
    if len(axes) != len(shape) or any(name == "1" and length != 1 for name, length in zip(axes, shape, strict=True)):
        raise InputError(f"{str(path)!r} holds a tensor of shape {shape}, which does not have the axes {', '.join(axes)}")
    layers = next((name for name in _LAYERS if name in axes), None)
    order = [axes.index(name) for name in ("position", layers, "d_model") if name in axes]
    grid = tensor.permute(*order, *(place for place, name in enumerate(axes) if name == "1"))
    grid = grid.reshape([1 if name not in axes else shape[axes.index(name)] for name in ("position", layers, "d_model")])
    if layers == "hidden_state":
        grid = grid[:, :-1]
    unsaid = [] if layers else ["layer", "site"]
    if "position" not in axes:
        unsaid.append("position")
    vectors = [vector for plane in grid for vector in plane if bool(vector.any())]
    if not vectors:
        raise InputError(f"{str(path)!r} holds only zeros, so it has no direction")
    if all(map(is_unit, vectors)):
        unsaid.append("raw norm")
    facts = Provenance(
        file=path.name, format=f"axes {','.join(axes)}", stored_dtype=str(tensor.dtype), not_in_the_file=tuple(unsaid)
    )
    if layers:
        facts = facts.replaced(grid=list(grid.shape[:2]))
    found = []
    for position in range(-grid.shape[0], 0):
        for layer in range(grid.shape[1]):
            place = [*([position] if "position" in axes else []), *([layer] if layers else [])]
            if bool(grid[position, layer].any()):
                name = ".".join(map(str, [path.stem, *place]))
                site: Site = "resid_post" if layers == "layer_output" else "resid_pre"
                found.append(
                    from_raw(grid[position, layer], name=name, layer=layer, position=position, site=site, provenance=facts)
                )
    return found


def read_numbered(entries: Mapping[int, object], axes: tuple[str, ...] | None, path: Path) -> list[Direction]:
    """The directions of a dict with one vector for each number, such as `layer_activations` of steering-vectors.

    Args:
        entries: the vectors by number.
        axes: what the numbers are, and `d_model`: `layer_output,d_model` for the outputs of blocks.
        path: the file.

    Returns:
        One direction for each number, in order. The number of the model's layers is not known.

    Raises:
        InputError: without such axes, for a negative number, and for values that are no vectors.
    """
    if axes is None or len(axes) != 2 or axes[0] not in _LAYERS or axes[1] != "d_model":
        raise InputError(
            f"{str(path)!r} holds vectors by number; say what the numbers are with axes=..., or in demur convert with --axes: "
            "layer_output,d_model (outputs of blocks, as steering-vectors and repeng count), layer,d_model (inputs), or "
            "hidden_state,d_model"
        )
    site: Site = "resid_post" if axes[0] == "layer_output" else "resid_pre"
    found = []
    for layer, value in sorted(entries.items()):
        vector = checked(value, path, f"vector {layer}")
        if layer < 0 or vector.ndim != 1:
            raise InputError(
                f"{str(path)!r} holds a tensor of shape {tuple(vector.shape)} for the number {layer}; expected a vector "
                "(d_model,) for each layer, counted from 0"
            )
        unsaid = ("position", "raw norm") if is_unit(vector) else ("position",)
        facts = Provenance(
            file=path.name, format=f"axes {','.join(axes)}", stored_dtype=str(vector.dtype), not_in_the_file=unsaid
        )
        found.append(from_raw(vector, name=f"{path.stem}.{layer}", layer=layer, site=site, provenance=facts))
    return found
