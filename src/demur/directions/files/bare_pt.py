"""A bare unit vector in a `.pt` file, as the code of "Base LLMs refuse too" writes them (ckkissane/base-models-refuse).

The vector is kept; its layer, site, position, raw norm and provenance are not in the file.
"""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from demur.directions.direction import Direction, from_raw
from demur.directions.file_formats import Architecture
from demur.directions.files.requirements import the_one
from demur.directions.files.untrusted_tensors import write_pt
from demur.directions.provenance import Provenance

# A unit vector that is stored in half precision differs from length one by less than this.
_UNIT = 1e-2


def write(directions: Sequence[Direction], path: Path, architecture: Architecture) -> None:
    """Write one unit vector (d_model,), float32."""
    write_pt(the_one(directions, path).vector.clone(), path)


def is_unit(vector: Tensor) -> bool:
    """Whether a vector has length one, in the precision in which it may be stored. Its raw norm is then not known."""
    return abs(float(vector.double().norm()) - 1) < _UNIT


def read(vector: Tensor, path: Path) -> Direction:
    """A direction of unknown layer, site and position. If the vector has length one, the raw norm is unknown too."""
    unsaid = ["layer", "site", "position"]
    if is_unit(vector):
        unsaid.append("raw norm")
    facts = Provenance(file=path.name, format="post", stored_dtype=str(vector.dtype), not_in_the_file=tuple(unsaid))
    return from_raw(vector, name=path.stem, layer=0, provenance=facts)
