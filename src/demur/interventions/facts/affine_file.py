"""The file of an affine edit: its directions, the means whose components it puts back, and where it acts, with provenance."""

import json
from pathlib import Path
from typing import Literal, cast

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from demur.core.atomic_files import replace_file
from demur.core.errors import InputError
from demur.directions.files.safetensors_file import direction_of, facts_of
from demur.directions.provenance import Provenance
from demur.directions.subspace import Subspace
from demur.interventions.edit_arguments import Positions
from demur.interventions.intervention import Intervention, edit
from demur.interventions.stream_means import Label, StreamMeans
from demur.interventions.target_facts import TargetFacts
from demur.models.layouts import Point, Site

FORMAT: Literal["demur-affine-1"] = "demur-affine-1"


class _Header(BaseModel):
    """What the file says beside its tensors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["demur-affine-1"]
    kind: Literal["affine", "subspace"]
    name: str
    directions: list[dict[str, JsonValue]]
    layers: list[int] | None
    sites: list[Site] | None
    positions: Positions
    label: Label
    points: list[tuple[int, Literal["resid_pre", "resid_mid"]]]
    position: int
    count: int
    means: dict[str, JsonValue]


def save_affine(edit: Intervention, path: str | Path) -> Path:
    """Write an affine edit to a `.safetensors` file, from which `demur.load_affine` reads the same edit.

    The file has the directions and, at every layer and site, the mean whose component along them is put back.

    Args:
        edit: an edit that `demur.affine` made, of a direction or a subspace, with its means.
        path: the file to write; its folders are made.

    Returns:
        The path.

    Raises:
        InputError: for another kind of edit, for one without its means or with a gate, for another ending, and if the place
            cannot be written to.
        WorkError: if the disk is full.

    Example:
        >>> import tempfile, torch, demur
        >>> direction = demur.from_raw(torch.tensor([3.0, 4.0]), name="d", layer=1)
        >>> means = demur.StreamMeans.of({(0, "resid_pre"): torch.tensor([1.0, 2.0])})
        >>> edit = demur.affine(direction, to=means, layers=[0], sites=["resid_pre"])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     read = demur.load_affine(demur.save_affine(edit, f"{folder}/edit.safetensors"))
        >>> read.layers, read.facts.harmless
        ((0,), StreamMeans('harmless', 1 points, position=-1, width=2))
    """
    path, to = Path(path), getattr(edit.settings, "to", None)
    if edit.kind not in ("affine", "subspace") or to not in ("harmless", "harmful"):
        raise InputError(
            f"only affine edits are written to such a file, not one of kind {edit.kind!r}; make one with demur.affine"
        )
    if edit.gate is not None:
        raise InputError("the gate of an edit cannot be stored; write the edit without it, and add it with demur.when")
    if path.suffix != ".safetensors" or path.is_dir():
        raise InputError(f"an affine edit is written to a file that ends with .safetensors, not to {path.name!r}")
    means = edit.facts.means(to)
    header = _Header(
        format=FORMAT,
        kind="affine" if edit.direction is not None else "subspace",
        name=edit.artefacts[0].name if edit.subspace is None else edit.subspace.name,
        directions=[cast("dict[str, JsonValue]", facts_of(one)) for one in edit.artefacts],
        layers=None if edit.layers is None else list(edit.layers),
        sites=None if edit.sites is None else list(edit.sites),
        positions=edit.positions,
        label=means.label,
        points=[(where.layer, where.site) for where in means.points],
        position=means.position,
        count=means.count,
        means=cast("dict[str, JsonValue]", means.provenance.facts()),
    )
    tensors = {"mean": means.mean.contiguous(), "mean_norm": means.mean_norm.contiguous()}
    tensors |= {f"direction.{number}": one.vector.contiguous() for number, one in enumerate(edit.artefacts)}
    facts = json.dumps(header.model_dump(mode="json"), sort_keys=True)
    replace_file(path, bytes(save(tensors, metadata={"demur": facts})))
    return path


def load_affine(path: str | Path, *, width: int | None = None, n_layers: int | None = None) -> Intervention:
    """Read an affine edit from a file that `demur.save_affine` wrote.

    Args:
        path: the file.
        width: the width of the model's residual stream, `checkpoint.d_model`, to check that the edit fits.
        n_layers: the number of the model's blocks, `checkpoint.n_layers`.

    Returns:
        The edit, with the same bits.

    Raises:
        InputError: for a file that is missing or is another file, and for an edit of another width or number of layers.

    The example of `demur.save_affine` reads the file, too.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no file {str(path)!r} of an affine edit")
    header, tensors = _content(path)
    size = path.stat().st_size
    vectors = [tensors.get(f"direction.{number}") for number in range(len(header.directions))]
    mean, norm = tensors.get("mean"), tensors.get("mean_norm")
    if not vectors or mean is None or norm is None or mean.shape[:1] != (len(header.points),) or norm.shape != mean.shape[:1]:
        raise InputError(f"{str(path)!r} has no directions, or not one mean for each of its points; make the file again")
    known = [
        direction_of(vector, json.dumps(facts), str(path), size)
        for vector, facts in zip(vectors, header.directions, strict=True)
        if vector is not None
    ]
    if len(known) != len(header.directions) or mean.ndim != 2 or any(one.vector.shape != mean.shape[1:] for one in known):
        raise InputError(f"{str(path)!r} has directions and means of different widths or numbers; make the file again")
    _check_fit(path, header, mean.shape[1], width, n_layers)
    points = tuple(Point(layer, site) for layer, site in header.points)
    means = StreamMeans(header.label, points, mean, norm, header.count, header.position, Provenance.of(header.means))
    made = edit(
        header.kind,
        known[0] if header.kind == "affine" else Subspace(header.name, tuple(known)),
        layers=header.layers,
        sites=header.sites,
        positions=header.positions,
        to=header.label,
    )
    return made.with_facts(TargetFacts.of_means(means))


def _content(path: Path) -> tuple[_Header, dict[str, Tensor]]:
    """The header and the tensors of a file. Raises `InputError` for any other file."""
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get("demur", "")
            # Copied, because a tensor may be a view of the mapped file, which may be overwritten while it is in use.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{str(path)!r} is not a safetensors file: {error}") from error
    try:
        return _Header.model_validate_json(header), tensors
    except ValidationError as error:
        raise InputError(
            f"{str(path)!r} holds no affine edit that this version reads ({FORMAT}); read a direction with demur.load_direction, "
            "or a subspace with demur.load_subspace"
        ) from error


def _check_fit(path: Path, header: _Header, found: int, width: int | None, n_layers: int | None) -> None:
    """Raises `InputError` for an edit that was made for a model of another width or number of layers."""
    if width is not None and width != found:
        raise InputError(f"{str(path)!r} is of width {found}, and the model's stream has width {width}; make the edit for it")
    # The point after the last block belongs to the layer after it.
    last = max(layer for layer, _ in header.points)
    outside = n_layers is not None and (last > n_layers or (header.layers is None and last != n_layers))
    if outside:
        raise InputError(
            f"{str(path)!r} has means up to layer {last}, where a model of {n_layers} layers has them up to layer "
            f"{n_layers}, the output of its last block; make the edit for this model"
        )
