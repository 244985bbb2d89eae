"""demur's own format: a safetensors file with one tensor `direction`, and all facts about it as JSON in the header.

Nothing is lost: vector, raw norm, layer, site, position and provenance are read back unchanged. A file of another version, or
with an incomplete header, is refused.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from demur.core.atomic_files import replace_file
from demur.core.errors import InputError
from demur.directions.direction import Direction
from demur.directions.file_formats import Architecture
from demur.directions.files.requirements import the_one
from demur.directions.files.untrusted_tensors import checked_size, whole_number
from demur.directions.provenance import Provenance
from demur.models.layouts import SITES, Site

FORMAT = "demur-direction-1"


@dataclass(frozen=True)
class _Content:
    """The content of a safetensors file, not yet checked. `tensor` is the one called `direction`."""

    names: tuple[str, ...]
    header: str | None
    tensor: Tensor | None
    size: int


def write(directions: Sequence[Direction], path: Path, architecture: Architecture) -> None:
    """Write one direction: tensor `direction` (d_model,), float32, metadata as JSON under `demur`."""
    replace_file(path, to_bytes(the_one(directions, path)))


def to_bytes(direction: Direction) -> bytes:
    """The content of the file that `write` writes. The same direction gives the same bytes."""
    header = json.dumps(facts_of(direction), sort_keys=True)
    return bytes(save({"direction": direction.vector.contiguous()}, metadata={"demur": header}))


def facts_of(direction: Direction) -> dict[str, object]:
    """All facts of a direction but its vector, as JSON values."""
    return {
        "format": FORMAT,
        "name": direction.name,
        "raw_norm": float(direction.raw_norm),
        "layer": direction.layer,
        "position": direction.position,
        "site": direction.site,
        "provenance": direction.provenance.facts(),
    }


def read(path: Path) -> Direction:
    """Read a file that `write` wrote.

    Raises:
        InputError: for any other file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            names = tuple(file.keys())
            # Copied, because the tensor may be a view of the mapped file, which may be overwritten while the direction is in use.
            tensor = file.get_tensor("direction").clone() if "direction" in names else None
            content = _Content(names, (file.metadata() or {}).get("demur"), tensor, path.stat().st_size)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{str(path)!r} is not a safetensors file: {error}") from error
    return _direction(content, str(path))


def from_bytes(content: bytes, where: str) -> Direction:
    """Read a direction from the content of a file that `write` wrote, such as one in a database.

    Args:
        content: the bytes.
        where: their name in error messages.

    Raises:
        InputError: for any other content, as `read`.
    """
    try:
        tensors = load(content)
        # `load` has checked that the length at the start and the JSON after it are sound.
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    except (SafetensorError, ValueError, KeyError, RecursionError) as error:
        raise InputError(f"{where!r} is not a safetensors file: {error}") from error
    tensor = tensors["direction"].clone() if "direction" in tensors else None
    return _direction(_Content(tuple(tensors), header.get("__metadata__", {}).get("demur"), tensor, len(content)), where)


def _direction(content: _Content, where: str) -> Direction:
    if content.tensor is None or content.header is None:
        raise InputError(
            f"{where!r} holds {', '.join(content.names) or 'nothing'}, not a tensor 'direction' with demur's metadata; "
            "make direction files with demur extract"
        )
    return direction_of(content.tensor, content.header, where, content.size)


def direction_of(tensor: Tensor, header: str, where: str, size: int) -> Direction:
    """A direction from its vector and its facts.

    Args:
        tensor: the vector, not yet checked.
        header: its facts as JSON, as `facts_of` gives them.
        where: the name of the file in error messages.
        size: the size of the file in bytes.

    Raises:
        InputError: for a vector that is not one, and for facts that are missing or of a wrong kind.
    """
    facts = _parsed(header, where)
    name, raw_norm, layer, position = (facts.get(key) for key in ("name", "raw_norm", "layer", "position"))
    vector = checked_size(tensor, where, size)
    if vector.ndim != 1:
        raise InputError(f"{where!r}: its tensor has the shape {tuple(vector.shape)}; expected one vector (d_model,)")
    if not isinstance(name, str):
        raise _wrong("name", where)
    if not isinstance(raw_norm, float):
        raise _wrong("raw_norm", where)
    if not whole_number(layer) or layer < 0:
        raise _wrong("layer", where)
    if not whole_number(position):
        raise _wrong("position", where)
    return Direction(
        name, vector.float(), raw_norm, layer, position, cast(Site, facts["site"]), _provenance(facts.get("provenance"), where)
    )


def _parsed(header: str, where: str) -> dict[str, object]:
    """The facts in the header. Only the version of the format and the site are checked."""
    try:
        facts = json.loads(header)
        version, site = facts["format"], facts["site"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{where!r} has demur's metadata, but it cannot be read; make the file again") from error
    if version != FORMAT or site not in SITES:
        raise InputError(f"{where!r} is of format {version!r} and site {site!r}; this version reads {FORMAT!r}")
    return dict(facts)


def _provenance(facts: object, where: str) -> Provenance:
    if not isinstance(facts, dict):
        raise _wrong("provenance", where)
    try:
        return Provenance.of(facts)
    except InputError as error:
        raise _wrong("provenance", where) from error


def _wrong(key: Literal["name", "raw_norm", "layer", "position", "provenance"], where: str) -> InputError:
    return InputError(f"{where!r} has a header whose {key!r} is missing or of a wrong kind; make the file again")
