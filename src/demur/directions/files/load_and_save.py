"""Files of directions: demur's own and those of others, read by what they hold and written by name.

A reader keeps what its format keeps; what a file does not say stands in the provenance (`Direction.says`), and is never made up
when the direction is written again. Files are data: nothing is unpickled beyond plain tensors, and a file that claims more than
it holds is refused. docs/direction-files.md says what each format keeps and loses.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demur.core.errors import InputError, nearest

if TYPE_CHECKING:
    from demur.directions.direction import Direction


@dataclass(frozen=True)
class Format:
    """A way to write directions: the module that does it, and the endings that its files have."""

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
    """The model that a file is written for: its transformers `model_type` and number of blocks, None where nobody said."""

    family: str | None
    n_layers: int | None


def format_for(path: str | Path, name: str | None = None) -> str:
    """The format a path is written in: the one named, or the only one that its file name allows.

    Raises `InputError` for an unknown name, an ending that the format does not have, and a `.pt` name that several formats share.
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


def load_directions(path: str | Path, *, layer: int | None = None, position: int | None = None) -> "list[Direction]":
    """Every direction of a file, in the order of positions and layers; `layer` and `position` as in `load_direction`.

    In a `mean_diffs.pt` the vectors of zeros, as at every template token of the first layer's input, are no directions and are
    left out. Raises `InputError` as `load_direction` does.
    """
    from demur.directions.direction import UNSAID

    found = _read(Path(path))
    widths = sorted({direction.vector.shape[0] for direction in found})
    if len(widths) > 1:
        raise InputError(f"{str(path)!r} holds directions of widths {widths}, so they are not of one model")
    for fact, value in {"layer": layer, "position": position}.items():
        if value is None:
            continue
        if found[0].says(fact):
            there = sorted({int(getattr(direction, fact)) for direction in found})
            found = [direction for direction in found if getattr(direction, fact) == value]
            if not found:
                raise InputError(f"{str(path)!r} has no direction of {fact} {value}; it has {fact} {_span(there)}")
        else:
            found = [_told(direction, fact, value, UNSAID) for direction in found]
    return found


def load_direction(path: str | Path, *, layer: int | None = None, position: int | None = None) -> "Direction":
    """Read one direction from a file of any format in `FORMATS`.

    `layer` and `position` choose among the directions of a file, or are taken as said where the file does not say them. Of a
    `mean_diffs.pt`, the direction that its `direction_metadata.json` names is read unless another is asked for. Raises
    `InputError` for a file that is missing or is none of these formats, and where the choice leaves none or several.
    """
    path = Path(path)
    if layer is None and position is None:
        layer, position = _preferred(path)
    found = load_directions(path, layer=layer, position=position)
    if len(found) > 1:
        layers, positions = (sorted({int(getattr(d, fact)) for d in found}) for fact in ("layer", "position"))
        places = f"layer {_span(layers)}" + (f" and position {_span(positions)}" if len(positions) > 1 else "")
        raise InputError(
            f"{str(path)!r} holds {len(found)} directions, of {places}; choose one with layer=... and position=..., "
            "or write it to a file of its own with demur convert --layer --position"
        )
    return found[0]


def save_directions(
    directions: "Sequence[Direction]",
    path: str | Path,
    *,
    format: str | None = None,
    family: str | None = None,
    n_layers: int | None = None,
) -> Path:
    """Write directions in one of `FORMATS`, guessed from the file's name where it is not given; returns the path.

    `family` (a transformers `model_type`) and `n_layers` say which model the file is for; directions extracted by demur know it.
    Raises `InputError` where the format cannot say what the directions are or the file cannot be written, `WorkError` where the
    disk is full.
    """
    path = Path(path)
    writer = import_module(f"demur.directions.files.{FORMATS[format_for(path, format)].module}")
    if not directions:
        raise InputError(f"there is no direction to write to {str(path)!r}")
    widths = sorted({direction.vector.shape[0] for direction in directions})
    if len(widths) > 1:
        raise InputError(f"directions of widths {widths} cannot share the file {str(path)!r}; write one width a file")
    if path.is_dir():
        raise InputError(f"{str(path)!r} cannot be written: it is a folder; name a file to write directions to")
    if n_layers is not None and n_layers < 1:
        raise InputError(f"a model has at least one layer, not {n_layers}")
    known: list[Any] = [direction.provenance.get("architecture", {}) for direction in directions]
    architecture = Architecture(family or _agreed(known, "family"), n_layers or _agreed(known, "layers"))
    writer.write(directions, path, architecture)
    return path


def _read(path: Path) -> "list[Direction]":
    if not path.is_file():
        raise InputError(f"there is no direction file {str(path)!r}")
    if path.suffix == ".gguf":
        from demur.directions.files import gguf_control_vector

        return gguf_control_vector.read(path)
    if path.suffix in (".pt", ".pth"):
        from demur.directions.files import detect_pt

        return detect_pt.read(path)
    from demur.directions.files import safetensors_file

    return [safetensors_file.read(path)]


def _preferred(path: Path) -> tuple[int | None, int | None]:
    if path.name != "mean_diffs.pt":
        return None, None
    from demur.directions.files.arditi_direction import choice_for

    return choice_for(path) or (None, None)


def _told(direction: "Direction", fact: str, value: int, key: str) -> "Direction":
    facts = {**direction.provenance, key: [entry for entry in direction.provenance[key] if entry != fact]}
    changes: dict[str, Any] = {fact: value, "provenance": facts}
    return replace(direction, **changes)


def _agreed(known: list[Any], fact: str) -> Any:
    said = {entry.get(fact) for entry in known}
    return said.pop() if len(said) == 1 else None


def _span(numbers: list[int]) -> str:
    whole = numbers == list(range(numbers[0], numbers[-1] + 1))
    return f"{numbers[0]} to {numbers[-1]}" if whole and len(numbers) > 2 else ", ".join(map(str, numbers))
