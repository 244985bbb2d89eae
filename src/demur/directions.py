"""A direction of the residual stream with its provenance; how it is made from activations, written and read.

`vector` has unit norm, in float32; `raw_norm` keeps the length of the difference of means. A file holds one tensor `direction`
and the provenance as JSON in its header. Foreign files are data: nothing is ever unpickled beyond plain tensors.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from demur.errors import InputError
from demur.files import replace_file
from demur.layouts import SITES, Site

FORMAT = "demur-direction-1"


@dataclass(frozen=True, eq=False)
class Direction:
    """A unit vector of length d_model, where it was read and what it was read from.

    `layer` and `site` say where in the stream, `position` which prompt token (-1: the last). `provenance` holds the checkpoint's
    fingerprint, the prompt text, the token read, instruction hashes, counts and versions; a control's says what it stands beside.
    """

    name: str
    vector: Float[Tensor, " d_model"]
    raw_norm: float
    layer: int
    position: int = -1
    site: Site = "resid_pre"
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not torch.isfinite(self.vector).all() or not 0 < self.raw_norm < float("inf"):
            raise InputError(f"direction {self.name!r} is zero or not finite, so it points nowhere")
        length = float(self.vector.double().norm())
        if abs(length - 1) > 1e-4 or self.vector.dtype != torch.float32:
            raise InputError(f"direction {self.name!r} must be a float32 unit vector; make it with demur.directions.from_raw")

    def save(self, path: str | Path) -> Path:
        """Write a safetensors file: tensor `direction` (d_model,), metadata as JSON under `demur`. Returns the path."""
        return replace_file(Path(path), self.to_bytes())

    def to_bytes(self) -> bytes:
        """What `save` writes: the same direction gives the same bytes."""
        facts = {
            "format": FORMAT,
            "name": self.name,
            "raw_norm": self.raw_norm,
            "layer": self.layer,
            "position": self.position,
            "site": self.site,
            "provenance": dict(self.provenance),
        }
        return bytes(save({"direction": self.vector.contiguous()}, metadata={"demur": json.dumps(facts, sort_keys=True)}))


def from_raw(
    vector: Tensor,
    *,
    name: str,
    layer: int,
    position: int = -1,
    site: Site = "resid_pre",
    provenance: Mapping[str, Any] | None = None,
) -> Direction:
    """A direction from a vector (d_model,) of any length. Raises `InputError` where it is zero, not finite or not one vector."""
    if vector.ndim != 1:
        raise InputError(f"direction {name!r} must be one vector, not a tensor of shape {tuple(vector.shape)}")
    exact = vector.detach().double().cpu()
    norm = float(exact.norm())
    unit = (exact / norm).float() if norm > 0 else exact.float()
    return Direction(name, unit, norm, layer, position, site, dict(provenance or {}))


class RunningMean:
    """Mean over rows of activations, summed in float64: memory does not grow with the number of rows."""

    def __init__(self) -> None:
        self.count = 0
        self._sum: Tensor | None = None
        self._norms: Tensor | None = None

    def update(self, rows: Float[Tensor, "row layer d_model"]) -> None:
        """Take in some rows."""
        total, norms = rows.double().sum(0), rows.double().norm(dim=-1).sum(0)
        self._sum = total if self._sum is None else self._sum + total
        self._norms = norms if self._norms is None else self._norms + norms
        self.count += rows.shape[0]

    @property
    def mean(self) -> Float[Tensor, "layer d_model"]:
        """Mean activation, float64."""
        assert self._sum is not None, "no rows yet"
        return self._sum / self.count

    @property
    def mean_norm(self) -> Float[Tensor, " layer"]:
        """Mean length of the activations, float64: what a coefficient in units of 'residual' counts."""
        assert self._norms is not None, "no rows yet"
        return self._norms / self.count


def difference_of_means(
    harmful: Float[Tensor, "layer d_model"],
    harmless: Float[Tensor, "layer d_model"],
    *,
    name: str,
    layers: Sequence[int],
    position: int = -1,
    site: Site = "resid_pre",
    provenance: Mapping[str, Any] | None = None,
) -> list[Direction]:
    """One direction a layer, mean(harmful) - mean(harmless): Arditi et al. 2024, section 2.3."""
    difference = harmful.double() - harmless.double()
    facts = {"method": "difference of means", **(provenance or {})}
    same = [layer for layer, row in zip(layers, difference, strict=True) if not row.any()]
    if same:
        raise InputError(
            f"at layer {same[0]} ({site}, position {position}) harmful and harmless instructions have the same activation, "
            "as every template token has at the first layer's input; choose a later layer"
        )
    return [
        from_raw(row, name=name, layer=layer, position=position, site=site, provenance=facts)
        for layer, row in zip(layers, difference, strict=True)
    ]


def load_direction(path: str | Path, *, layer: int | None = None) -> Direction:
    """Read a direction: demur's safetensors, or a bare tensor in a `.pt` file as "Base LLMs refuse too" ships them.

    A bare tensor does not say its layer: give it, or it counts as 0 and an edit of `add` must name its own. Raises `InputError`
    for a file that is missing or holds anything else.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no direction file {str(path)!r}")
    found = _read_pt(path) if path.suffix in (".pt", ".pth") else _read_safetensors(path)
    return found if layer is None else replace(found, layer=layer)


def _read_safetensors(path: Path) -> Direction:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            keys = list(file.keys())
            vector = file.get_tensor("direction") if "direction" in keys else None
    except (SafetensorError, OSError) as error:
        raise InputError(f"{str(path)!r} is not a safetensors file: {error}") from error
    if vector is None or "demur" not in metadata:
        raise InputError(
            f"{str(path)!r} holds {', '.join(keys) or 'nothing'}, not a tensor 'direction' with demur's metadata; "
            "make direction files with demur extract"
        )
    facts = _facts(path, metadata["demur"])
    site = facts["site"]
    if site not in SITES:
        raise InputError(f"{str(path)!r} was read at the site {site!r}; this version knows {', '.join(SITES)}")
    if vector.ndim != 1:
        raise InputError(f"{str(path)!r} must hold one vector, not a tensor of shape {tuple(vector.shape)}")
    return Direction(
        facts["name"], vector.float(), float(facts["raw_norm"]), facts["layer"], facts["position"], site, facts["provenance"]
    )


def _facts(path: Path, text: str) -> dict[str, Any]:
    """The metadata of a direction file: foreign data until it was checked."""
    kinds: dict[str, Any] = {
        "format": str, "name": str, "raw_norm": (int, float), "layer": int, "position": int, "site": str, "provenance": dict
    }  # fmt: skip
    try:
        facts = json.loads(text)
    except ValueError:
        facts = None
    facts = facts if isinstance(facts, dict) else {}
    if isinstance(facts.get("format"), str) and facts["format"] != FORMAT:
        raise InputError(f"{str(path)!r} is of format {facts['format']!r}; this version reads {FORMAT!r}")
    wrong = next((key for key, kind in kinds.items() if not isinstance(facts.get(key), kind)), None)
    if wrong is None and facts["layer"] < 0:
        wrong = "layer"
    if wrong is not None:
        raise InputError(
            f"{str(path)!r} has metadata whose {wrong!r} is {facts.get(wrong)!r}; make direction files with demur extract"
        )
    return facts


def _read_pt(path: Path) -> Direction:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many kinds for a file that is not its own
        raise InputError(f"{str(path)!r} cannot be read as plain tensors: {type(error).__name__}") from error
    if not isinstance(loaded, Tensor):
        raise InputError(f"{str(path)!r} holds a {type(loaded).__name__}, not one tensor of shape (d_model,)")
    return from_raw(loaded, name=path.stem, layer=0, provenance={"file": path.name, "stored dtype": str(loaded.dtype)})


def cosines(directions: Iterable[Direction]) -> Float[Tensor, "direction direction"]:
    """Pairwise cosine similarities in float64. Raises `InputError` for directions of different widths."""
    directions = list(directions)
    widths = {direction.vector.shape[0] for direction in directions}
    if len(widths) != 1:
        raise InputError(f"directions of widths {sorted(widths)} cannot be compared; give directions of one width")
    stacked = torch.stack([direction.vector.double() for direction in directions])
    stacked = stacked / stacked.norm(dim=-1, keepdim=True)
    return torch.matmul(stacked, stacked.T)
