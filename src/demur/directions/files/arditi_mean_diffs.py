"""`mean_diffs.pt` as Arditi et al. write it: the difference of means at every position after the instruction and every layer.

Source: andyrdt/refusal_direction, pipeline/submodules/generate_directions.py. The file is one float64 tensor (position, layer,
d_model), read at the inputs of blocks, at positions from the first after the instruction to -1. Provenance is lost. A grid with
gaps is not written.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from demur.core.errors import InputError
from demur.directions.direction import Direction, from_raw
from demur.directions.file_formats import Architecture
from demur.directions.files.arditi_direction import layer_of, position_of
from demur.directions.files.requirements import require
from demur.directions.files.untrusted_tensors import write_pt
from demur.directions.provenance import Provenance

FILE = "mean_diffs.pt"


def write(directions: Sequence[Direction], path: Path, architecture: Architecture) -> None:
    """Write raw vectors on a full grid of positions and layers, float64 with the accuracy of float32.

    Layer 0 may be missing. The input of a template token there does not depend on the instruction, so its vectors are zeros.
    """
    cells: dict[tuple[int, int], Direction] = {}
    for direction in directions:
        place = position_of(direction), layer_of(direction, architecture)
        require(direction, "raw norm")
        if place in cells:
            raise InputError(f"two directions are of position {place[0]} and layer {place[1]}; mean_diffs.pt holds one")
        cells[place] = direction
    n_positions = -min(position for position, _ in cells)
    n_layers = architecture.n_layers or 1 + max(layer for _, layer in cells)
    for position in range(-n_positions, 0):
        for layer in range(1, n_layers):
            if (position, layer) not in cells:
                raise InputError(
                    f"mean_diffs.pt holds every position from {-n_positions} to -1 at every layer from 1 to {n_layers - 1}, but "
                    f"no direction of position {position} and layer {layer} was given"
                )
    grid = torch.zeros(n_positions, n_layers, directions[0].vector.shape[0], dtype=torch.float64)
    for (position, layer), direction in cells.items():
        grid[position, layer] = direction.raw_vector()
    write_pt(grid, path)


def read(grid: Tensor, path: Path) -> list[Direction]:
    """Every direction of the grid. Vectors of zeros are left out.

    Raises:
        InputError: if all vectors are zero.
    """
    facts = Provenance(file=path.name, format="mean-diffs", stored_dtype=str(grid.dtype)).replaced(grid=list(grid.shape[:2]))
    found = [
        from_raw(grid[position, layer], name=f"{path.stem}.{position}.{layer}", layer=layer, position=position, provenance=facts)
        for position in range(-grid.shape[0], 0)
        for layer in range(grid.shape[1])
        if bool(grid[position, layer].any())
    ]
    if not found:
        raise InputError(f"{str(path)!r} holds only zeros, so it has no direction")
    return found
