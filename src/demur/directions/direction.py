"""A direction of the residual stream: a unit vector, the place where it was read, and its provenance."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from demur.core.errors import InputError
from demur.core.html_repr import facts_table
from demur.directions.file_formats import direction_bytes, write_directions
from demur.directions.provenance import Provenance
from demur.models.layouts import SITES, Site

UNSAID = "not in the file"
"""Provenance key: which of layer, site, position and raw norm the file of a direction does not have."""


@dataclass(frozen=True, eq=False)
class Direction:
    """A direction of the residual stream. Make one with `demur.from_raw`, `demur.extract_direction` or `demur.load_direction`.

    Attributes:
        name: its name in reports and edits.
        vector: the direction, (d_model,), float32, of length one.
        raw_norm: the length of the vector before it was scaled to one, for example of a difference of means.
        layer: the block at which it was read, counted from 0.
        position: the prompt token at which it was read; -1 is the last.
        site: the point of that block: `resid_pre`, `resid_mid` or `resid_post`.
        provenance: the checkpoint, prompt and instructions that it was made from.

    Raises:
        InputError: for a vector that is zero, not finite, not float32 or not of length one; for a layer or site that cannot
            exist.

    Example:
        >>> import torch, demur
        >>> direction = demur.from_raw(torch.tensor([3.0, 4.0]), name="toy", layer=1)
        >>> direction
        Direction('toy', layer=1, site='resid_pre', position=-1, width=2, raw_norm=5)
        >>> direction.vector
        tensor([0.6000, 0.8000])
    """

    name: str
    vector: Float[Tensor, " d_model"]
    raw_norm: float
    layer: int
    position: int = -1
    site: Site = "resid_pre"
    provenance: Provenance = field(default_factory=Provenance)

    def __post_init__(self) -> None:
        if not torch.isfinite(self.vector).all() or not 0 < self.raw_norm < float("inf"):
            raise InputError(f"direction {self.name!r} is zero or not finite, so it points nowhere")
        length = float(self.vector.double().norm())
        if abs(length - 1) > 1e-4 or self.vector.dtype != torch.float32:
            raise InputError(f"direction {self.name!r} must be a float32 unit vector; make it with demur.from_raw")
        if not isinstance(self.provenance, Provenance):
            raise InputError(
                f"direction {self.name!r} has a {type(self.provenance).__name__} for its provenance; make it with demur.from_raw"
            )
        if self.layer < 0 or self.site not in SITES:
            raise InputError(
                f"direction {self.name!r} is of layer {self.layer} and site {self.site!r}; expected a layer from 0 and one of "
                f"{', '.join(SITES)}"
            )

    def __repr__(self) -> str:
        place = f"layer={self.layer}, site={self.site!r}, position={self.position}"
        return f"Direction({self.name!r}, {place}, width={self.vector.shape[0]}, raw_norm={self.raw_norm:.4g})"

    def _repr_html_(self) -> str:
        read = self.provenance
        sides = (("harmful", read.harmful), ("harmless", read.harmless))
        rows = [
            ("read at", f"layer {self.layer}, {self.site}, position {self.position}"),
            ("token read", None if read.token_read is None else repr(read.token_read)),
            ("width", self.vector.shape[0]),
            ("raw norm", f"{self.raw_norm:.4g}"),
            ("checkpoint", read.checkpoint),
            ("weights", read.fingerprint),
            ("prompt", read.prompt),
            ("instructions", " and ".join(f"{side.n} {label}" for label, side in sides if side is not None)),
            ("not in its file", ", ".join(read.not_in_the_file)),
        ]
        return facts_table(f"Direction {self.name}", rows)

    def says(self, fact: str) -> bool:
        """Whether `layer`, `site`, `position` or `raw norm` is known.

        It is unknown if the direction was read from a file without this fact. The attribute's value is then meaningless.
        """
        return fact not in self.provenance.not_in_the_file

    def check_grid(self, n_layers: int) -> None:
        """Check that a direction from a tensor with one vector for each layer is used on a model with as many layers.

        Args:
            n_layers: the number of the model's blocks.

        Raises:
            InputError: if the tensor had another number of layers, so that its axes are probably something else.
        """
        known = self.provenance.grid_layers
        if known is None or known == n_layers:
            return
        advice = "the entry after the last block may be included; say axes with hidden_state in place of layer"
        if known != n_layers + 1:
            advice = "its axes may be in another order; say them with axes=..., or in demur convert with --axes"
        raise InputError(
            f"direction {self.name!r} comes from a tensor with {known} layers, and this model has {n_layers}; {advice}"
        )

    def raw_vector(self) -> Float[Tensor, " d_model"]:
        """The vector at its raw length, such as the difference of means itself: (d_model,), float64."""
        return self.vector.double() * self.raw_norm

    def save(self, path: str | Path) -> Path:
        """Write this direction in the format that the path's ending names. `.safetensors` keeps all its facts.

        Args:
            path: the file to write; its folders are made. For a format that shares its ending, use `demur.save_directions`.

        Returns:
            The path.

        Raises:
            InputError: for an ending that names no format or several, and if the place cannot be written to.
            WorkError: if the disk is full.

        Example:
            >>> import tempfile, torch, demur
            >>> direction = demur.from_raw(torch.tensor([3.0, 4.0]), name="toy", layer=1)
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     path = direction.save(f"{folder}/toy.safetensors")
            ...     print(demur.load_direction(path))
            Direction('toy', layer=1, site='resid_pre', position=-1, width=2, raw_norm=5)
        """
        return write_directions([self], Path(path), format=None)

    def to_bytes(self) -> bytes:
        """The content of the `.safetensors` file that `save` writes. The same direction gives the same bytes."""
        return direction_bytes(self)


def from_raw(
    vector: Tensor,
    *,
    name: str,
    layer: int,
    position: int = -1,
    site: Site = "resid_pre",
    provenance: Provenance | Mapping[str, object] | None = None,
) -> Direction:
    """Make a direction from a vector of any length.

    Args:
        vector: the vector, (d_model,), of any floating dtype.
        name: the name of the direction in reports and edits.
        layer: the block at which it was read, counted from 0.
        position: the prompt token at which it was read; -1 is the last.
        site: the point of that block: `resid_pre`, `resid_mid` or `resid_post`.
        provenance: a `Provenance`, or a mapping with the keys that a direction's file has.

    Returns:
        The direction. Its `vector` has length one, in float32; its `raw_norm` is the length that was given.

    Raises:
        InputError: if the vector is zero, not finite or not one vector, for a layer or site that cannot exist, and for provenance
            of a wrong type.

    Example:
        >>> import torch, demur
        >>> direction = demur.from_raw(torch.tensor([0.0, 2.0]), name="toy", layer=0, provenance={"checkpoint": "made up"})
        >>> direction.raw_norm, direction.provenance.checkpoint
        (2.0, 'made up')
    """
    if vector.ndim != 1:
        raise InputError(f"direction {name!r} must be one vector, not a tensor of shape {tuple(vector.shape)}")
    exact = vector.detach().double().cpu()
    norm = float(exact.norm())
    unit = (exact / norm).float() if norm > 0 else exact.float()
    facts = provenance if isinstance(provenance, Provenance) else Provenance.of(provenance or {})
    return Direction(name, unit, norm, layer, position, site, facts)


def cosines(directions: Iterable[Direction]) -> Float[Tensor, "direction direction"]:
    """Pairwise cosine similarities.

    Args:
        directions: directions of one width.

    Returns:
        The cosine of each pair, (direction, direction), float64.

    Raises:
        InputError: for directions of different widths.
    """
    directions = list(directions)
    widths = {direction.vector.shape[0] for direction in directions}
    if len(widths) != 1:
        raise InputError(f"directions of widths {sorted(widths)} cannot be compared; give directions of one width")
    stacked = torch.stack([direction.vector.double() for direction in directions])
    stacked = stacked / stacked.norm(dim=-1, keepdim=True)
    return torch.matmul(stacked, stacked.T)
