"""Directions from files and to files, in demur's own format and in those of other tools.

The content of a file decides how it is read. Its name decides how it is written. A fact that is missing in a file is listed in
the provenance (`Direction.says`), and is never written to another file as if it were known. Files are read as data: only plain
tensors are unpickled, and a file that claims more than it contains is refused. docs/direction-files.md lists what each format
keeps and loses.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from demur.core.errors import InputError
from demur.directions.direction import Direction
from demur.directions.file_formats import write_directions
from demur.directions.files import detect_pt, gguf_control_vector, sae_decoder, safetensors_file
from demur.directions.files.arditi_direction import choice_for
from demur.directions.files.arditi_mean_diffs import FILE
from demur.directions.files.foreign_endings import refuse_foreign
from demur.directions.files.said_axes import parse_axes

Fact = Literal["layer", "position"]


def load_directions(
    path: str | Path,
    *,
    layer: int | None = None,
    position: int | None = None,
    axes: str | None = None,
    feature: int | None = None,
) -> list[Direction]:
    """Read every direction of a file.

    Args:
        path: a file of any format that demur writes.
        layer: only directions of this layer; or the layer, if the file does not have one.
        position: only directions of this prompt position; or the position, if the file does not have one.
        axes: what the axes of the tensor in a `.pt` file are, such as "layer,1,d_model", if the file does not tell. The names are
            `layer` (the inputs of blocks, from 0), `layer_output` (their outputs), `hidden_state` (as transformers gives them:
            the inputs, and one entry after the final norm, which is left out), `position` (its last entry is the last token of
            the prompt), `d_model`, and `1` for an axis of length one.
        feature: the number of a feature, for the weights of a sparse autoencoder: `W_dec` or `w_dec` in a
            `.safetensors` file, or a file of Qwen-Scope.

    Returns:
        The directions in the order of positions and layers. Vectors of zeros in a `mean_diffs.pt` are left out, such as those of
        template tokens at the first layer's input.

    Raises:
        InputError: for a file that is missing or of no known format, and for a layer or position that it does not have.

    Example:
        >>> import tempfile, torch, demur
        >>> made = [demur.from_raw(torch.randn(8), name=f"layer{layer}", layer=layer) for layer in (2, 3)]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = demur.save_directions(made, f"{folder}/vectors.gguf", family="llama")
        ...     [direction.layer for direction in demur.load_directions(path)]  # as resid_post
        [1, 2]
    """
    found = _read(Path(path), None if axes is None else parse_axes(axes), feature)
    widths = sorted({direction.vector.shape[0] for direction in found})
    if len(widths) > 1:
        raise InputError(f"{str(path)!r} holds directions of widths {widths}, so they are not of one model")
    choices: tuple[tuple[Fact, int | None], ...] = (("layer", layer), ("position", position))
    for fact, value in choices:
        if value is None:
            continue
        if found[0].says(fact):
            there = sorted({int(getattr(direction, fact)) for direction in found})
            found = [direction for direction in found if getattr(direction, fact) == value]
            if not found:
                raise InputError(f"{str(path)!r} has no direction of {fact} {value}; it has {fact} {_span(there)}")
        else:
            found = [_with_fact(direction, fact, value) for direction in found]
    return found


def load_direction(
    path: str | Path,
    *,
    layer: int | None = None,
    position: int | None = None,
    axes: str | None = None,
    feature: int | None = None,
) -> Direction:
    """Read one direction from a file.

    Args:
        path: a file of any format that demur writes.
        layer: the layer to choose; or the layer of the direction, if the file does not have one.
        position: the prompt position to choose; or the position of the direction, if the file does not have one.
        axes: what the axes of the tensor in a `.pt` file are; see `load_directions`.
        feature: the number of a feature of a sparse autoencoder.

    Returns:
        The direction. For a `mean_diffs.pt` without a choice of layer and position, it is the one that the
        `direction_metadata.json` of the same run names.

    Raises:
        InputError: for a file that is missing or of no known format, and if the choice leaves no direction or several.

    Example:
        >>> import tempfile, torch, demur
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save(torch.tensor([0.6, 0.8]), f"{folder}/bare.pt")
        ...     demur.load_direction(f"{folder}/bare.pt", layer=13).layer
        13
    """
    path = Path(path)
    if layer is None and position is None and axes is None and path.name == FILE:
        layer, position = choice_for(path) or (None, None)
    found = load_directions(path, layer=layer, position=position, axes=axes, feature=feature)
    if len(found) > 1:
        layers, positions = (sorted({int(getattr(d, fact)) for d in found}) for fact in ("layer", "position"))
        places = f"layer {_span(layers)}" + (f" and position {_span(positions)}" if len(positions) > 1 else "")
        raise InputError(
            f"{str(path)!r} holds {len(found)} directions, of {places}; choose one with layer=... and position=..., "
            "or write it to a file of its own with demur convert --layer --position"
        )
    return found[0]


def save_directions(
    directions: Sequence[Direction],
    path: str | Path,
    *,
    format: str | None = None,
    family: str | None = None,
    n_layers: int | None = None,
) -> Path:
    """Write directions to one file.

    Args:
        directions: the directions, of one width.
        path: the file to write; its folders are made.
        format: a key of `demur.directions.file_formats.FORMATS`; None for the only one that the file's name allows.
        family: the transformers `model_type` of the model that the file is for. Directions that demur extracted know it.
        n_layers: the number of blocks of that model. Directions that demur extracted know it.

    Returns:
        The path.

    Raises:
        InputError: if the format cannot represent the directions, and if the file cannot be written.
        WorkError: if the disk is full.

    Example:
        >>> import tempfile, torch, demur
        >>> direction = demur.from_raw(torch.randn(8), name="toy", layer=2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = demur.save_directions([direction], f"{folder}/toy.pt", format="post")
        ...     demur.load_direction(path).says("layer")  # this format keeps only the vector
        False
    """
    return write_directions(directions, Path(path), format=format, family=family, n_layers=n_layers)


def _read(path: Path, axes: tuple[str, ...] | None, feature: int | None) -> list[Direction]:
    if not path.is_file():
        raise InputError(f"there is no direction file {str(path)!r}")
    refuse_foreign(path)
    suffix = path.suffix.lower()
    if feature is not None:
        if suffix not in (".safetensors", ".pt", ".pth"):
            raise InputError(
                f"features are of a sparse autoencoder in a .safetensors or .pt file, not of {str(path)!r}; leave it out"
            )
        return [sae_decoder.read(path, feature)]
    if suffix in (".pt", ".pth"):
        return detect_pt.read(path, axes)
    if axes is not None:
        raise InputError(f"{str(path)!r} says what its vectors are; axes are for tensors in .pt files, so leave them out")
    if suffix == ".gguf":
        return gguf_control_vector.read(path)
    if sae_decoder.has_decoder(path):
        raise InputError(
            f"{str(path)!r} holds a sparse autoencoder, each of whose features is a direction; choose one with feature=..., or "
            "with --feature of demur convert"
        )
    return [safetensors_file.read(path)]


def _with_fact(direction: Direction, fact: Fact, value: int) -> Direction:
    """The direction with a fact that its file does not have."""
    unsaid = tuple(entry for entry in direction.provenance.not_in_the_file if entry != fact)
    facts = direction.provenance.replaced(not_in_the_file=unsaid)
    if fact == "layer":
        return replace(direction, layer=value, provenance=facts)
    return replace(direction, position=value, provenance=facts)


def _span(numbers: list[int]) -> str:
    whole = numbers == list(range(numbers[0], numbers[-1] + 1))
    return f"{numbers[0]} to {numbers[-1]}" if whole and len(numbers) > 2 else ", ".join(map(str, numbers))
