"""How an arm's training activations vary within the classes at one point of the stream: their covariance, and what it whitens."""

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from demur.core.errors import InputError
from demur.directions.estimators.estimator import Side
from demur.directions.estimators.layer_rows import class_centred
from demur.directions.estimators.whitened import solved_by_covariance
from demur.directions.provenance import Provenance
from demur.models.layouts import Point, Site, point


@dataclass(frozen=True, eq=False)
class StreamSpread:
    """Deviations of one arm's training activations from the mean of their class, at one point. `demur.leace_facts` reads them.

    Their covariance is that of the estimator `whitened`: shrunk, because there are fewer instructions than dimensions.

    Attributes:
        where: the point of the stream at which the activations were read.
        deviations: each activation without the mean of its class, harmful ones first, float32.
        position: the prompt token at which they were read; -1 is the last.
        provenance: the checkpoint, prompt and instructions that they were made from.
    """

    where: Point
    deviations: Float[Tensor, "instruction d_model"]
    position: int = -1
    provenance: Provenance = field(default_factory=Provenance)
    _readers: dict[bytes, Tensor] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of_sides(
        cls, sides: tuple[Side, Side], row: int, layer: int, site: Site, position: int, provenance: Provenance
    ) -> "StreamSpread":
        """The deviations of whole training activations.

        Args:
            sides: harmful and harmless activations.
            row: the place of the layer among those of the sides.
            layer: the layer.
            site: its site.
            position: the prompt token that was read.
            provenance: that of the activations.
        """
        return cls(point(layer, site), class_centred(*sides, row).float(), position, provenance)

    def reader(self, unit: Float[Tensor, " width"]) -> Float[Tensor, " width"]:
        """The vector v with v.r = 1 along which the activations vary least: S^-1 r / (r.S^-1 r).

        A stream that moves by r moves by 1 along v, and of all vectors with this property v varies least within the classes.

        Args:
            unit: the direction r.

        Returns:
            v, float32. It is computed once for each direction, because an edit asks for it at every point.

        Raises:
            InputError: for a vector of another width, and if the activations do not differ from each other.
        """
        width = self.deviations.shape[1]
        if unit.shape != (width,):
            raise InputError(
                f"the training activations of width {width} cannot be used with a direction of width {unit.shape[0]}; read them "
                "in the checkpoint that is edited"
            )
        key = unit.numpy().tobytes()
        if key not in self._readers:
            exact = unit.double()
            solved = solved_by_covariance(self.deviations.double(), exact)
            along = float(solved @ exact)
            if not along > 0:
                raise InputError(
                    f"the training activations at {self.where.site} of layer {self.where.layer} do not differ within the "
                    "classes, so they have no covariance; use a direction of a later layer, or more instructions"
                )
            self._readers[key] = (solved / along).float()
        return self._readers[key]

    def __repr__(self) -> str:
        n, width = self.deviations.shape
        return f"StreamSpread(layer={self.where.layer}, site={self.where.site!r}, position={self.position}, {n} x {width})"
