"""Makes affine edits: `demur.affine`."""

from collections.abc import Sequence
from typing import Any

from demur.core.errors import InputError, nearest
from demur.directions.direction import Direction
from demur.directions.subspace import Subspace
from demur.interventions.edit_arguments import Positions
from demur.interventions.intervention import Intervention, edit
from demur.interventions.stream_means import LABELS, StreamMeans
from demur.interventions.target_facts import TargetFacts
from demur.models.layouts import Site


def affine(
    direction: Direction | Subspace,
    *,
    to: Any = "harmless",  # Any, so that whatever else is given is refused in one sentence
    layers: Sequence[int] | None = None,
    sites: Sequence[Site | str] | None = None,
    positions: Positions | str = "all",
) -> Intervention:
    """Affine ablation, x' = x - (x.r) r + (m.r) r: sets the component along a direction to that of a mean activation m.

    At each point of the stream, m is the target's own mean at this point. `demur.ablate` sets the component to zero instead,
    which may be far from any activation of the target. Source: affine concept editing (Marshall, Scherlis and Belrose 2024, arXiv
    2411.09003), where alpha = 0 is the harmless mean and alpha = 1 the harmful mean.

    Args:
        direction: the direction whose component is set; its unit vector is r. For a subspace, all components in it are set.
        to: the target's means, as `demur.stream_means` reads them. With a label, `harmless` or `harmful`, the edit gets the
            means later, with `edit.with_facts(...)`; a study does this.
        layers: the layers where it acts; every layer by default.
        sites: the sites of those layers; every site of the family by default.
        positions: `all`, `prompt` or `generated`.

    Returns:
        The edit, for `demur.generate` and `demur.steer`.

    Raises:
        InputError: for an unknown label, site or choice of positions, and for a layer or site that is named twice.

    Example:
        >>> import demur, torch
        >>> direction = demur.from_raw(torch.tensor([3.0, 4.0]), name="d", layer=1)
        >>> means = demur.StreamMeans.of({(0, "resid_pre"): torch.tensor([1.0, 2.0])})
        >>> edit = demur.affine(direction, to=means, layers=[0], sites=["resid_pre"])
        >>> edit.kind, edit.settings.to, edit.missing_facts
        ('affine', 'harmless', ())
        >>> demur.affine(direction, to="harmful").missing_facts
        ('harmful means',)
    """
    label = to.label if isinstance(to, StreamMeans) else to
    if label not in LABELS:
        said = repr(to) if isinstance(to, str) else f"a {type(to).__name__}"
        hint = nearest(to, LABELS) if isinstance(to, str) else "read means with demur.stream_means"
        raise InputError(f"an affine edit moves the stream to means or to one of {', '.join(LABELS)}, not to {said}; {hint}")
    kind = "subspace" if isinstance(direction, Subspace) else "affine"
    made = edit(kind, direction, layers=layers, sites=sites, positions=positions, to=label)
    return made.with_facts(TargetFacts.of_means(to)) if isinstance(to, StreamMeans) else made
