"""The formats in which directions are written to files: their names, their endings, and the module that writes each.

The module of a format is imported when it is first used. So a direction can write itself, although the modules of the formats
import `Direction`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol, TypeVar, cast, runtime_checkable

from torch import Tensor

from demur.core.errors import InputError, nearest
from demur.directions.provenance import Provenance

Fact = TypeVar("Fact", str, int)


@dataclass(frozen=True)
class Format:
    """A format of direction files.

    Attributes:
        module: the module in `demur.directions.files` that writes it.
        endings: the endings that its files have.
    """

    module: str
    endings: tuple[str, ...]


FORMATS = {
    "demur": Format("safetensors_file", (".safetensors",)),
    "post": Format("bare_pt", (".pt", ".pth")),
    "arditi": Format("arditi_direction", (".pt",)),
    "mean-diffs": Format("arditi_mean_diffs", (".pt",)),
    "gguf": Format("gguf_control_vector", (".gguf",)),
    "lm-eval": Format("lm_eval_steering", (".pt", ".pth")),
    "lm-eval-ablation": Format("lm_eval_ablation", (".pt", ".pth")),
}
_BY_NAME = {"direction.pt": "arditi", "mean_diffs.pt": "mean-diffs"}


@dataclass(frozen=True)
class Architecture:
    """The model that a file is written for.

    Attributes:
        family: its transformers `model_type`; None if it is not known.
        n_layers: its number of blocks; None if it is not known.
    """

    family: str | None
    n_layers: int | None


@runtime_checkable
class Written(Protocol):
    """What a writer needs of a `Direction`. The class itself cannot be imported here, because its module imports this one."""

    @property
    def vector(self) -> Tensor:
        """The unit vector, (d_model,)."""
        ...

    @property
    def provenance(self) -> Provenance:
        """Where the direction comes from."""
        ...


@runtime_checkable
class Writer(Protocol):
    """The module of a format."""

    def write(self, directions: Sequence[Written], path: Path, architecture: Architecture) -> None:
        """Write a file, or raise `InputError` if the format cannot represent the directions."""
        ...


def format_for(path: str | Path, name: str | None = None) -> str:
    """The format in which a file is written.

    Args:
        path: the file to write.
        name: a key of `FORMATS`; None for the only format that the file's name allows.

    Raises:
        InputError: for an unknown name, an ending that the format does not have, and a `.pt` name that several formats share.
    """
    path = Path(path)
    if name is not None:
        if name not in FORMATS:
            raise InputError(f"{name!r} is not a format of direction files; {nearest(name, FORMATS)}")
        if path.suffix not in FORMATS[name].endings:
            raise InputError(f"a file of format {name!r} ends with {' or '.join(FORMATS[name].endings)}, not {path.name!r}")
        return name
    if path.name in _BY_NAME:
        return _BY_NAME[path.name]
    fitting = [known for known, entry in FORMATS.items() if path.suffix in entry.endings]
    if len(fitting) != 1:
        found = (
            f"{path.name!r} could be {', '.join(fitting)}" if fitting else f"no format of direction files ends like {path.name!r}"
        )
        raise InputError(f"{found}; name one with format=... or --format: {', '.join(FORMATS)}")
    return fitting[0]


def write_directions(
    directions: Sequence[Written], path: Path, *, format: str | None, family: str | None = None, n_layers: int | None = None
) -> Path:
    """Write directions to a file, with the checks that all formats share; see `demur.save_directions`."""
    writer = _writer(format_for(path, format))
    if not directions:
        raise InputError(f"there is no direction to write to {str(path)!r}")
    widths = sorted({direction.vector.shape[0] for direction in directions})
    if len(widths) > 1:
        raise InputError(f"directions of widths {widths} cannot share the file {str(path)!r}; write each width to its own file")
    if path.is_dir():
        raise InputError(f"{str(path)!r} cannot be written: it is a folder; give the name of a file")
    if n_layers is not None and n_layers < 1:
        raise InputError(f"a model has at least one layer, not {n_layers}")
    known = [direction.provenance.architecture for direction in directions]
    families = (entry.family if entry else None for entry in known)
    layers = (entry.layers if entry else None for entry in known)
    writer.write(directions, path, Architecture(family or _agreed(families), n_layers or _agreed(layers)))
    return path


def direction_bytes(direction: Written) -> bytes:
    """One direction in demur's own format. The same direction gives the same bytes."""
    content: bytes = import_module(f"{__package__}.files.{FORMATS['demur'].module}").to_bytes(direction)
    return content


def _writer(name: str) -> Writer:
    return cast(Writer, import_module(f"{__package__}.files.{FORMATS[name].module}"))


def _agreed(known: Iterable[Fact | None]) -> Fact | None:
    """The value that all have in common; None if they differ."""
    said = set(known)
    return said.pop() if len(said) == 1 else None
