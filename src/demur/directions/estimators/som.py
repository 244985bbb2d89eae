"""`som`: several directions for each layer, from a self-organising map of the harmful activations to the harmless mean."""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from demur.core.errors import InputError
from demur.directions.estimators.estimator import Side
from demur.directions.estimators.layer_rows import layer_rows

SIDE = 4
"""The map has so many rows of neurons, and so many in each row."""

STEPS = 10_000
_RATE, _WIDTH = 0.01, 0.33
"""The step size, and the width of the neighbourhood in distances of neighbours, both at the start."""


class SelfOrganisingMap:
    """The neurons of a map that win most harmful activations, each minus the harmless mean.

    Piras et al. 2026 (arXiv 2511.08379): a hexagonal map of 4 x 4 neurons, 10 000 steps, a rate of 0.01 and a neighbourhood of
    0.33. They search for the best of the 16 directions on validation instructions; here they are ordered by how many harmful
    activations they win. The neurons start at harmful activations. The draws are fixed.
    """

    name: ClassVar[str] = "som"
    needs: ClassVar[Literal["means", "activations"]] = "activations"

    def fit_several(self, harmful: Side, harmless: Side, count: int) -> Float[Tensor, "part layer d_model"]:
        """One direction for each neuron, the one that wins most activations first, float64.

        Raises:
            InputError: if fewer neurons win an activation than directions are asked for.
        """
        found = []
        for layer in range(len(harmful.mean)):
            rows, generator = layer_rows(harmful, layer), torch.Generator().manual_seed(0)
            starts = torch.randint(len(rows), (SIDE * SIDE,), generator=generator)
            drawn = torch.randint(len(rows), (STEPS,), generator=generator)
            # Distances are the same for centred rows, and lose fewer digits where the mean is far from zero.
            mean = rows.mean(0)
            neurons = trained_map(rows - mean, starts, drawn)
            wins = torch.bincount(_nearest(rows - mean, neurons), minlength=len(neurons))
            if int((wins > 0).sum()) < count:
                raise InputError(
                    f"the estimator {self.name!r} is asked for {count} directions, but only {int((wins > 0).sum())} of its "
                    f"{len(neurons)} neurons win a harmful activation; give more training instructions, or ask for fewer"
                )
            order = torch.sort(wins, descending=True, stable=True).indices[:count]
            found.append(neurons[order] + mean - harmless.mean[layer].double())
        return torch.stack(found, dim=1)


def trained_map(
    rows: Float[Tensor, "row d_model"], starts: Int[Tensor, " neuron"], drawn: Int[Tensor, " step"]
) -> Float[Tensor, "neuron d_model"]:
    """Train a map: in each step, the neuron that is nearest to a row and its neighbours move towards it (Kohonen 1982).

    Rate and neighbourhood shrink to a third of their values at the start.

    Args:
        rows: the activations, float64.
        starts: the row at which each neuron starts.
        drawn: the row of each step.
    """
    neurons, places = rows[starts].clone(), _places()
    squared = torch.cdist(places, places).square()
    for step, row in enumerate(drawn.tolist()):
        shrunk = 1 / (1 + 2 * step / len(drawn))
        gaps = rows[row] - neurons
        nearest = int(gaps.square().sum(1).argmin())
        pull = _RATE * shrunk * torch.exp(-squared[nearest] / (2 * (_WIDTH * shrunk) ** 2))
        neurons += pull[:, None] * gaps
    return neurons


def _places() -> Float[Tensor, "neuron 2"]:
    """The places of the neurons on a hexagonal grid, on which neighbours have a distance of 1. Every second row is shifted."""
    places = [(column + 0.5 * (row % 2), row * 3**0.5 / 2) for row in range(SIDE) for column in range(SIDE)]
    return torch.tensor(places, dtype=torch.float64)


def _nearest(rows: Tensor, neurons: Tensor) -> Int[Tensor, " row"]:
    return torch.cdist(rows, neurons, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
