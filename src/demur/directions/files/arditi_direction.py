"""`direction.pt` as Arditi et al. write it, with `direction_metadata.json` in the same folder, which says position and layer.

Source: andyrdt/refusal_direction, pipeline/run_pipeline.py and pipeline/submodules/select_direction.py. The file is one float64
vector with its raw norm, read at the input of a block. Provenance is lost. Metadata that cannot be read is an error.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from demur.core.atomic_files import replace_file
from demur.core.errors import InputError
from demur.directions.direction import Direction, from_raw
from demur.directions.file_formats import Architecture
from demur.directions.files import bare_pt
from demur.directions.files.requirements import block_before, require, the_one
from demur.directions.files.untrusted_tensors import whole_number, write_pt
from demur.directions.provenance import Provenance

DIRECTION = "direction.pt"
METADATA = "direction_metadata.json"
FOLDER = "generate_directions"


def write(directions: Sequence[Direction], path: Path, architecture: Architecture) -> None:
    """Write one vector with its raw norm, (d_model,), float64, and its position and layer to the metadata file."""
    if path.name != DIRECTION:
        raise InputError(
            f"refusal_direction reads {DIRECTION} and {METADATA} in one folder; name the file {DIRECTION}, not {path.name!r}"
        )
    direction = the_one(directions, path)
    choice = {"pos": position_of(direction), "layer": layer_of(direction, architecture)}
    require(direction, "raw norm")
    write_pt(direction.raw_vector(), path)
    replace_file(path.with_name(METADATA), json.dumps(choice, indent=4))


def read(vector: Tensor, path: Path) -> Direction:
    """A direction with the layer and position that the metadata file names. If there is no such file, they are unknown."""
    choice = choice_for(path)
    if choice is None:
        return bare_pt.read(vector, path)
    facts = Provenance(file=path.name, format="arditi", stored_dtype=str(vector.dtype))
    return from_raw(vector, name=path.stem, layer=choice[0], position=choice[1], provenance=facts)


def layer_of(direction: Direction, architecture: Architecture) -> int:
    """The block at whose input the direction was read, which Arditi et al. call its layer.

    Raises:
        InputError: if there is no such block.
    """
    layer = block_before(direction) + 1
    if architecture.n_layers is not None and layer >= architecture.n_layers:
        raise InputError(
            f"direction {direction.name!r} was read at the output of the last block; "
            "refusal_direction has only directions at the inputs of blocks"
        )
    return layer


def position_of(direction: Direction) -> int:
    """The prompt position, counted from the end.

    Raises:
        InputError: if it is not known, or counted from the start.
    """
    require(direction, "position")
    if direction.position >= 0:
        raise InputError(
            f"direction {direction.name!r} is of position {direction.position}; refusal_direction counts from the end"
        )
    return direction.position


def choice_for(path: Path) -> tuple[int, int] | None:
    """(layer, position) from the metadata of the run that a file belongs to; None without metadata.

    The metadata is in the folder of `direction.pt`. `mean_diffs.pt` is in a subfolder of that folder.

    Raises:
        InputError: for metadata without an integer `layer` of at least 0 and an integer `pos` below 0.
    """
    places = [path.parent, *([path.parent.parent] if path.parent.name == FOLDER else [])]
    found = next((folder / METADATA for folder in places if (folder / METADATA).is_file()), None)
    if found is None:
        return None
    try:
        entry = json.loads(found.read_text(encoding="utf-8"))
        layer, position = entry["layer"], entry["pos"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{str(found)!r} does not say pos and layer as refusal_direction writes them: {error}") from error
    if not (whole_number(layer) and whole_number(position) and layer >= 0 > position):
        raise InputError(
            f"{str(found)!r} says layer {layer!r} and pos {position!r}; expected a layer from 0 and a position below 0"
        )
    return layer, position
