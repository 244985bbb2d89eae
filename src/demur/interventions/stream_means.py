"""Mean activations of one instruction set in one arm, at points of its residual stream."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from demur.core.errors import InputError
from demur.directions.provenance import Provenance
from demur.models.layouts import Point, Site, point

Label = Literal["harmful", "harmless"]
LABELS: tuple[Label, ...] = get_args(Label)


@dataclass(frozen=True, eq=False)
class StreamMeans:
    """Mean activations of one instruction set in one arm, in float64. `demur.stream_means` reads them.

    Attributes:
        label: the label of the instructions, `harmless` or `harmful`.
        points: the points of the stream at which they were read.
        mean: the mean activation at each point.
        mean_norm: the mean norm of the activations at each point.
        count: the number of instructions.
        position: the prompt token at which they were read; -1 is the last.
        provenance: the checkpoint, prompt and instructions that they were made from.

    Example:
        >>> import demur, torch
        >>> means = demur.StreamMeans.of({(0, "resid_pre"): torch.ones(4), (0, "resid_post"): torch.zeros(4)})
        >>> means
        StreamMeans('harmless', 2 points, position=-1, width=4)
    """

    label: Label
    points: tuple[Point, ...]
    mean: Float[Tensor, "point d_model"]
    mean_norm: Float[Tensor, " point"]
    count: int
    position: int = -1
    provenance: Provenance = field(default_factory=Provenance)

    @classmethod
    def of(cls, vectors: Mapping[tuple[int, Site], Tensor], label: Label = "harmless", *, position: int = -1) -> "StreamMeans":
        """Means that were computed elsewhere.

        Args:
            vectors: (layer, site) -> mean activation, (d_model,).
            label: the label of the instructions.
            position: the prompt token at which they were read.

        Raises:
            InputError: for no vectors, and for vectors of different widths.
        """
        points = {point(layer, site): vector.detach().double().cpu() for (layer, site), vector in vectors.items()}
        shapes = {tuple(vector.shape) for vector in points.values()}
        if len(shapes) != 1 or len(next(iter(shapes))) != 1:
            raise InputError(f"means need vectors of one width, (d_model,), not tensors of shape {sorted(shapes)}")
        mean = torch.stack(list(points.values()))
        return cls(label, tuple(points), mean, mean.norm(dim=-1), 1, position)

    @cached_property
    def _rows(self) -> dict[Point, int]:
        return {where: row for row, where in enumerate(self.points)}

    def at(self, where: Point) -> Float[Tensor, " d_model"]:
        """The mean activation at one point, float64.

        Raises:
            InputError: if the means were not read there.
        """
        if where not in self._rows:
            raise InputError(
                f"the {self.label} means were not read at {where.site} of layer {where.layer}, where an edit needs them; read "
                "them at every layer and site with demur.stream_means, or edit only the layers and sites that they have"
            )
        return self.mean[self._rows[where]]

    def along(self, unit: Float[Tensor, " width"], where: Point) -> Float[Tensor, ""]:
        """The component of the mean at one point along a unit vector, float64.

        Raises:
            InputError: if the means were not read there, or for a vector of another width.
        """
        mean = self.at(where)
        if mean.shape != unit.shape:
            raise InputError(
                f"the {self.label} means of width {mean.shape[0]} cannot be used with a direction of width {unit.shape[0]}; read "
                "the means in the checkpoint that is edited"
            )
        return torch.dot(mean, unit.double())

    def rows(self, points: Sequence[Point]) -> list[int]:
        """The places of these points in `mean`."""
        return [self._rows[where] for where in points]

    def __repr__(self) -> str:
        return f"StreamMeans({self.label!r}, {len(self.points)} points, position={self.position}, width={self.mean.shape[1]})"
