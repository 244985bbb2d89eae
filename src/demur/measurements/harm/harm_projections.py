"""Directions at two tokens of the prompt, and projections of instructions on both, at every layer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from demur.core.errors import NotFinite
from demur.measurements.measurement import ArmSubject
from demur.models.layouts import Site


@dataclass(frozen=True, eq=False)
class TokenDirections:
    """The means of harmful and harmless training instructions at two positions, at every layer, float64.

    Attributes:
        site: the site that was read.
        positions: the positions, counted from the prompt's end.
        harmless: the harmless means.
        difference: the harmful means minus the harmless ones.
    """

    site: Site
    positions: tuple[int, int]
    harmless: Float[Tensor, "layer position d_model"]
    difference: Float[Tensor, "layer position d_model"]

    @classmethod
    def of(cls, arm: ArmSubject, positions: tuple[int, int]) -> "TokenDirections":
        """Read the training instructions of an arm.

        Args:
            arm: the arm.
            positions: the positions.

        Raises:
            InputError: if a prompt does not have a position.
            WorkError: if an activation is not finite.
        """
        means = {}
        for label in ("harmful", "harmless"):
            total = torch.zeros(arm.checkpoint.n_layers, 2, arm.checkpoint.d_model, dtype=torch.float64)
            for _, read in _read(arm, arm.train[label], positions):
                total += read.double().sum(0)
            means[label] = total / len(arm.train[label])
        return cls(cast("Site", arm.site), positions, means["harmless"], means["harmful"] - means["harmless"])

    def cosine(self) -> Float[Tensor, " layer"]:
        """The cosine of the two directions at each layer; NaN where one of them is zero."""
        one, other = self.difference.unbind(1)
        found: Tensor = (one * other).sum(-1) / (one.norm(dim=-1) * other.norm(dim=-1))
        return found

    def projections(self, arm: ArmSubject, instructions: Sequence[str]) -> Float[Tensor, "instruction layer position"]:
        """The projections of instructions on both directions, scaled so that 0 is the harmless mean and 1 the harmful one.

        Args:
            arm: the arm.
            instructions: the instructions.

        Returns:
            One number for each instruction, layer and position, float64; NaN where a direction is zero.
        """
        own = self.difference / self.difference.square().sum(-1, keepdim=True)
        found = torch.empty(len(instructions), *own.shape[:2], dtype=torch.float64)
        for indices, read in _read(arm, instructions, self.positions):
            found[indices] = ((read.double() - self.harmless) * own).sum(-1)
        return found


def _read(
    arm: ArmSubject, instructions: Sequence[str], positions: tuple[int, int]
) -> Iterator[tuple[list[int], Float[Tensor, "row layer position d_model"]]]:
    """Activations at every layer and both positions, batch after batch."""
    engine = arm.checkpoint.engine_for("activations")
    try:
        for indices, read in engine.read(
            arm.prompt.encode(instructions),
            layers=range(arm.checkpoint.n_layers),
            site=cast("Site", arm.site),
            positions=positions,
            batch_tokens=arm.batch_tokens,
        ):
            yield indices, read
            arm.progress(len(indices))
    except NotFinite as error:
        raise error.named(arm.checkpoint.name, instructions[error.row]) from error
