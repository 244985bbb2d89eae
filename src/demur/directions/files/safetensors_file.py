"""demur's own file: one tensor `direction` in a safetensors file, all that is known of it as JSON in the header.

Nothing is lost: vector, raw norm, layer, site, position and provenance come back as they were. A file of another version, or
whose header does not say all of this, is refused.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from demur.core.atomic_files import replace_file
from demur.core.errors import InputError
from demur.directions.direction import UNSAID, Direction
from demur.directions.files.load_and_save import Architecture
from demur.directions.files.requirements import the_one
from demur.directions.files.untrusted_tensors import checked, whole_number
from demur.models.layouts import SITES

FORMAT = "demur-direction-1"
_MOST_LAYERS = 10_000


def write(directions: Sequence[Direction], path: Path, architecture: Architecture) -> None:
    """Write one direction: tensor `direction` (d_model,), float32, metadata as JSON under `demur`."""
    replace_file(path, to_bytes(the_one(directions, path)))


def to_bytes(direction: Direction) -> bytes:
    """What `write` writes: the same direction gives the same bytes."""
    facts = {
        "format": FORMAT,
        "name": direction.name,
        "raw_norm": float(direction.raw_norm),
        "layer": direction.layer,
        "position": direction.position,
        "site": direction.site,
        "provenance": dict(direction.provenance),
    }
    return bytes(save({"direction": direction.vector.contiguous()}, metadata={"demur": json.dumps(facts, sort_keys=True)}))


def read(path: Path) -> Direction:
    """The direction of a file that `write` wrote. Raises `InputError` for anything else."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            keys = list(file.keys())
            # The tensor may be a view of the mapped file, which can be written over while the direction lives.
            tensor = file.get_tensor("direction").clone() if "direction" in keys else None
    except (SafetensorError, OSError) as error:
        raise InputError(f"{str(path)!r} is not a safetensors file: {error}") from error
    return _made(tensor, keys, metadata, path, path.stat().st_size)


def from_bytes(content: bytes, name: str) -> Direction:
    """The direction in the content of a file that `write` wrote, without a file.

    Args:
        content: the bytes of the file.
        name: what an error message calls them.

    Raises:
        InputError: for bytes that `write` did not write.
    """
    try:
        tensors = load(content)
        # `load` gives no metadata: it stands in the header, whose length is in the first 8 bytes.
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        metadata = header.get("__metadata__", {})
    except (SafetensorError, ValueError) as error:
        raise InputError(f"{name!r} is not a safetensors file: {error}") from error
    # The tensor may be a view of the bytes.
    tensor = tensors["direction"].clone() if "direction" in tensors else None
    return _made(tensor, list(tensors), metadata, Path(name), len(content))


def _made(tensor: Tensor | None, keys: Sequence[str], metadata: dict[str, str], path: Path, size: int) -> Direction:
    if tensor is None or "demur" not in metadata:
        raise InputError(
            f"{str(path)!r} holds {', '.join(keys) or 'nothing'}, not a tensor 'direction' with demur's metadata; "
            "make direction files with demur extract"
        )
    facts = _facts(metadata["demur"], path)
    vector = checked(tensor, path, size=size)
    if vector.ndim != 1:
        raise InputError(f"{str(path)!r}: its tensor has the shape {tuple(vector.shape)}, not that of one vector, (d_model,)")
    return Direction(
        facts["name"],
        vector.float(),
        facts["raw_norm"],
        facts["layer"],
        facts["position"],
        facts["site"],
        facts["provenance"],
    )


def _facts(header: str, path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(header)
        version, site = facts["format"], facts["site"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{str(path)!r} has metadata of demur's that cannot be read; make the file again") from error
    if version != FORMAT or site not in SITES:
        raise InputError(f"{str(path)!r} is of format {version!r} and site {site!r}; this version reads {FORMAT!r}")
    valid = {
        "name": isinstance(facts.get("name"), str),
        "raw_norm": isinstance(facts.get("raw_norm"), float),
        "layer": whole_number(facts.get("layer")) and facts["layer"] >= 0,
        "position": whole_number(facts.get("position")),
        "provenance": isinstance(facts.get("provenance"), dict) and _sound(facts["provenance"]),
    }
    for key, good in valid.items():
        if not good:
            raise InputError(f"{str(path)!r} has a header whose {key!r} is missing or of a wrong kind; make the file again")
    return dict(facts)


def _sound(provenance: dict[str, Any]) -> bool:
    architecture = provenance.get("architecture", {"family": "", "layers": 1})
    return (
        isinstance(provenance.get(UNSAID, []), list)
        and isinstance(architecture, dict)
        and isinstance(architecture.get("family"), str)
        and whole_number(architecture.get("layers"))
        and 0 < architecture["layers"] < _MOST_LAYERS
    )
