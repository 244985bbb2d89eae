"""`k-means`: several directions, each from the harmless mean to the centre of one cluster of harmful activations."""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from demur.core.errors import InputError
from demur.directions.estimators.estimator import Side
from demur.directions.estimators.layer_rows import layer_rows

STARTS = 10
"""The clusters depend on where the search starts, so it is made this often, and the clusters with the least spread are kept."""

_MOST_STEPS = 300


class KMeans:
    """Centres of clusters of harmful activations, each minus the harmless mean.

    Piras et al. 2026 (arXiv 2511.08379) find several refusal directions in this way, with a self-organising map in place of
    k-means. With one cluster it is the difference of means.
    """

    name: ClassVar[str] = "k-means"
    needs: ClassVar[Literal["means", "activations"]] = "activations"

    def fit_several(self, harmful: Side, harmless: Side, count: int) -> Float[Tensor, "part layer d_model"]:
        """One direction for each cluster, the largest cluster first, float64.

        Raises:
            InputError: if a layer has fewer different harmful activations than clusters are asked for.
        """
        found = []
        for layer in range(len(harmful.mean)):
            rows = layer_rows(harmful, layer)
            different = len(torch.unique(rows, dim=0))
            if different < count:
                raise InputError(
                    f"the estimator {self.name!r} is asked for {count} directions, but there are only {different} different "
                    "harmful activations; give more training instructions, or ask for fewer directions"
                )
            found.append(_ordered_centres(rows, count) - harmless.mean[layer].double())
        return torch.stack(found, dim=1)


def _ordered_centres(rows: Float[Tensor, "row d_model"], count: int) -> Float[Tensor, "part d_model"]:
    """The centres of the best of several searches, that of the largest cluster first."""
    generator = torch.Generator().manual_seed(0)
    # Distances are the same for centred rows, and lose fewer digits where the mean is far from zero.
    mean = rows.mean(0)
    tried = [_clusters(rows - mean, count, generator) for _ in range(STARTS)]
    centres, of_row, _ = min(tried, key=lambda each: each[2])
    sizes = torch.bincount(of_row, minlength=count)
    order = sorted(range(count), key=lambda one: (-int(sizes[one]), int((of_row == one).nonzero()[0])))
    return centres[order] + mean


def _clusters(rows: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, float]:
    """One search: centres, the cluster of each row, and the sum of squared distances of rows to their centres."""
    centres = _start(rows, count, generator)
    of_row = torch.full((len(rows),), -1)
    for _ in range(_MOST_STEPS):
        distances = torch.cdist(rows, centres, compute_mode="donot_use_mm_for_euclid_dist").square()
        nearest = distances.argmin(1)
        for one in range(count):
            if not (nearest == one).any():
                # An empty cluster gets the row that is farthest from its centre.
                far = distances.gather(1, nearest[:, None])[:, 0].argmax()
                nearest[far], distances[far] = one, 0.0
        if torch.equal(nearest, of_row):
            break
        of_row = nearest
        centres = torch.stack([rows[of_row == one].mean(0) for one in range(count)])
    return centres, of_row, float((rows - centres[of_row]).square().sum())


def _start(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Rows as first centres, each drawn by its squared distance from those before it (Arthur and Vassilvitskii 2007)."""
    centres = [rows[int(torch.randint(len(rows), (1,), generator=generator))]]
    for _ in range(count - 1):
        distances = torch.stack([(rows - one).square().sum(1) for one in centres]).min(0).values
        centres.append(rows[int(torch.multinomial(distances, 1, generator=generator))])
    return torch.stack(centres)
