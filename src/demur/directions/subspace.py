"""Several directions together: the space that they span, its orthonormal basis, and its file."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from demur.core.atomic_files import replace_file
from demur.core.errors import InputError
from demur.directions.direction import Direction
from demur.directions.files.safetensors_file import direction_of, facts_of

FORMAT = "demur-subspace-1"

_DEPENDENT = 1e-4
"""A unit vector of which less than this is outside the space of the vectors before it adds only rounding error to that space."""


@dataclass(frozen=True, eq=False)
class Subspace:
    """Several directions of one width, in order. Make one with `demur.subspace` or `demur.load_subspace`.

    Attributes:
        name: its name in reports and edits.
        directions: the directions as they were given, each with its own place and provenance.

    Raises:
        InputError: for no directions, and for directions of different widths.
    """

    name: str
    directions: tuple[Direction, ...]

    def __post_init__(self) -> None:
        widths = sorted({len(one.vector) for one in self.directions})
        if len(widths) != 1:
            found = f"directions of widths {widths}" if widths else "no directions"
            raise InputError(f"{found} span no space; give one or more directions of one width")

    @cached_property
    def basis(self) -> Float[Tensor, "k d_model"]:
        """Orthonormal vectors that span the same space, float32. The first is the first direction.

        They are the Q of a QR decomposition in float64, with signs such that each points along the direction it was made from.

        Raises:
            InputError: if a direction lies in the space of those before it.
        """
        vectors = torch.stack([one.vector.double() for one in self.directions])
        if len(vectors) > vectors.shape[1]:
            raise InputError(f"{len(vectors)} directions of width {vectors.shape[1]} cannot be independent; give fewer")
        q, r = torch.linalg.qr(vectors.T)
        for direction, own in zip(self.directions, r.diagonal(), strict=True):
            if abs(float(own)) < _DEPENDENT:
                raise InputError(
                    f"direction {direction.name!r} of layer {direction.layer} lies in the space that the directions before it "
                    "span; leave it out"
                )
        basis: Tensor = (q * r.diagonal().sign()).T.float().contiguous()
        return basis

    @property
    def width(self) -> int:
        """The width of the residual stream."""
        return len(self.directions[0].vector)

    def __len__(self) -> int:
        return len(self.directions)

    def __repr__(self) -> str:
        layers = ", ".join(str(one.layer) for one in self.directions)
        return f"Subspace({self.name!r}, {len(self)} directions of layers {layers}, width={self.width})"

    def save(self, path: str | Path) -> Path:
        """Write a `.safetensors` file with every direction and its facts. The same directions give the same bytes.

        Args:
            path: the file to write; its folders are made.

        Returns:
            The path.

        Raises:
            InputError: for another ending, and if the place cannot be written to.
            WorkError: if the disk is full.
        """
        path = Path(path)
        if path.suffix != ".safetensors":
            raise InputError(f"a subspace is written to a file that ends with .safetensors, not to {path.name!r}")
        if path.is_dir():
            raise InputError(f"{str(path)!r} cannot be written: it is a folder; give the name of a file")
        facts = {"format": FORMAT, "name": self.name, "directions": [facts_of(one) for one in self.directions]}
        stacked = torch.stack([one.vector for one in self.directions])
        replace_file(path, bytes(save({"directions": stacked}, metadata={"demur": json.dumps(facts, sort_keys=True)})))
        return path


def subspace(directions: Sequence[Direction], *, name: str | None = None) -> Subspace:
    """Put several directions together, for an edit of the space that they span.

    `demur.ablate` and `demur.affine` take a subspace in place of a direction; `demur.edit` takes it for the kinds `ablate-each`
    and `angular`.

    Args:
        directions: the directions, of one width.
        name: the name of the subspace; without it, the names of its directions.

    Returns:
        The subspace.

    Raises:
        InputError: for no directions, and for directions of different widths.

    Example:
        >>> import demur, torch
        >>> along = demur.from_raw(torch.tensor([0.0, 2.0, 0.0]), name="along", layer=1)
        >>> aslant = demur.from_raw(torch.tensor([0.0, 1.0, 1.0]), name="aslant", layer=1)
        >>> both = demur.subspace([along, aslant])
        >>> both.name, both.basis[1].abs()
        ('along+aslant', tensor([0., 0., 1.]))
        >>> demur.ablate(both).kind
        'subspace'
    """
    given = tuple(directions)
    return Subspace(name or "+".join(dict.fromkeys(one.name for one in given)), given)


def load_subspace(path: str | Path) -> Subspace:
    """Read a subspace from a file that `Subspace.save` wrote.

    Args:
        path: the file.

    Returns:
        The subspace, with the same bits.

    Raises:
        InputError: for a file that is missing, and for any other file.

    Example:
        >>> import tempfile, torch, demur
        >>> made = demur.subspace([demur.from_raw(row, name="d", layer=1) for row in torch.eye(3)[:2]])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     demur.load_subspace(made.save(f"{folder}/both.safetensors"))
        Subspace('d', 2 directions of layers 1, 1, width=3)
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no subspace file {str(path)!r}")
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get("demur", "")
            # Copied, because the tensor may be a view of the mapped file, which may be overwritten while it is in use.
            vectors = file.get_tensor("directions").clone() if "directions" in file.keys() else None  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{str(path)!r} is not a safetensors file: {error}") from error
    name, facts = _header(header, str(path))
    if vectors is None or vectors.ndim != 2 or len(vectors) != len(facts):
        raise InputError(f"{str(path)!r} has facts of {len(facts)} directions, but not as many vectors; make the file again")
    size = path.stat().st_size
    read = [direction_of(vector, json.dumps(one), str(path), size) for vector, one in zip(vectors, facts, strict=True)]
    return Subspace(name, tuple(read))


def _header(header: str, where: str) -> tuple[str, list[object]]:
    """The name of the subspace and the facts of its directions. Raises `InputError` for any other header."""
    try:
        facts = json.loads(header)
        version, name, directions = facts["format"], facts["name"], facts["directions"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{where!r} holds no subspace; read a single direction with demur.load_direction") from error
    if version != FORMAT or not isinstance(name, str) or not isinstance(directions, list):
        raise InputError(f"{where!r} is of format {version!r}; this version reads {FORMAT!r}")
    return name, directions
