"""A direction of the residual stream with its provenance, and how it is made from activations.

`vector` has unit norm, in float32; `raw_norm` keeps the length of the difference of means. A vector that is zero or not finite
is refused. Files of directions are the business of `demur.directions.files`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from demur.core.errors import InputError
from demur.core.html_repr import facts_table
from demur.models.layouts import Site

UNSAID = "not in the file"
"""Provenance key: which of layer, site, position and raw norm the file that a direction was read from does not say."""


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
            raise InputError(f"direction {self.name!r} must be a float32 unit vector; make it with demur.from_raw")

    def __repr__(self) -> str:
        place = f"layer={self.layer}, site={self.site!r}, position={self.position}"
        return f"Direction({self.name!r}, {place}, width={self.vector.shape[0]}, raw_norm={self.raw_norm:.4g})"

    def _repr_html_(self) -> str:
        read, sides = self.provenance, [self.provenance.get(label) for label in ("harmful", "harmless")]
        counts = [f"{side['n']} {label}" for label, side in zip(("harmful", "harmless"), sides, strict=True) if side]
        rows = [
            ("read at", f"layer {self.layer}, {self.site}, position {self.position}"),
            ("token read", repr(read["token read"]) if "token read" in read else None),
            ("width", self.vector.shape[0]),
            ("raw norm", f"{self.raw_norm:.4g}"),
            ("checkpoint", read.get("checkpoint")),
            ("weights", read.get("fingerprint")),
            ("prompt", read.get("prompt")),
            ("instructions", " and ".join(counts)),
            ("not in its file", ", ".join(read.get(UNSAID, ()))),
        ]
        return facts_table(f"Direction {self.name}", rows)

    def says(self, fact: str) -> bool:
        """Whether `layer`, `site`, `position` or `raw norm` is known, not merely filled in for a file that does not say it."""
        return fact not in self.provenance.get(UNSAID, ())

    def raw_vector(self) -> Float[Tensor, " d_model"]:
        """The difference of means itself, float64: the unit vector times `raw_norm`."""
        return self.vector.double() * self.raw_norm

    def save(self, path: str | Path) -> Path:
        """Write this direction in the format that the path's ending names; `.safetensors` keeps all that is known of it.

        Returns the path. Raises `InputError` for an ending that names none, `WorkError` where it cannot be written; see
        `demur.save_directions`.
        """
        from demur.directions.files.load_and_save import save_directions  # formats build on this module

        return save_directions([self], path)

    def to_bytes(self) -> bytes:
        """What `save` writes to a `.safetensors` file: the same direction gives the same bytes."""
        from demur.directions.files.safetensors_file import to_bytes  # formats build on this module

        return to_bytes(self)


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


def cosines(directions: Iterable[Direction]) -> Float[Tensor, "direction direction"]:
    """Pairwise cosine similarities in float64. Raises `InputError` for directions of different widths."""
    directions = list(directions)
    widths = {direction.vector.shape[0] for direction in directions}
    if len(widths) != 1:
        raise InputError(f"directions of widths {sorted(widths)} cannot be compared; give directions of one width")
    stacked = torch.stack([direction.vector.double() for direction in directions])
    stacked = stacked / stacked.norm(dim=-1, keepdim=True)
    return torch.matmul(stacked, stacked.T)
