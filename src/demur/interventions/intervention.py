"""Edits of the residual stream as values, and the functions that make them.

An intervention names no model and registers no hook. Its kind (`edit_kind.py`) defines what it does. `edit_table.py` combines
the edits of a batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import cast, get_args

from jaxtyping import Float
from pydantic import BaseModel, JsonValue
from torch import Tensor

from demur.core.errors import InputError, nearest
from demur.directions.direction import Direction
from demur.directions.subspace import Subspace
from demur.interventions.edit_arguments import (
    Positions,
    Unit,
    check_artefact,
    check_known,
    checked_layers,
    checked_positions,
    checked_settings,
    checked_sites,
)
from demur.interventions.edit_kind import Fact, check_settings, edit_kind, needed_facts
from demur.interventions.gates.gate import Gate
from demur.interventions.target_facts import NO_FACTS, TargetFacts
from demur.models.layouts import SITES, Layout, Point, Site, point


@dataclass(frozen=True, repr=False)
class Intervention:
    """One edit of the residual stream. Make one with `demur.ablate`, `demur.add`, `demur.affine`, or `demur.edit` for any kind.

    Attributes:
        kind: the name of a registered kind of edit.
        direction: the direction of the edit; None for a kind that takes no direction.
        coefficient: the dose, for kinds that take one; None for the others.
        unit: what a coefficient of 1 means: the unit vector (`unit`), the raw difference of means (`raw`), or a vector as long as
            `residual_norm` (`residual`).
        layers: the layers where it acts; None for the direction's own layer or for every layer, depending on the kind.
        sites: the sites where it acts; None for the direction's own site or for every site of the family, depending on the kind.
        positions: the tokens that it acts on: `all`, only those of the prompt (`prompt`), or only those after it (`generated`).
            The first generated token is predicted at the last token of the prompt, so an edit of the prompt changes it.
        facts: what it knows of its target, such as the mean norm of the target's stream for the unit `residual`.
        settings: the kind's further settings; None for a kind that has none.
        subspace: the directions of an edit that takes several; None for the other kinds.
        gate: the condition on a row's prompt under which it acts; None if it always acts.

    Example:
        >>> import demur, torch
        >>> direction = demur.from_raw(torch.tensor([3.0, 4.0]), name="d", layer=1)
        >>> edit = demur.add(direction, 2.0)
        >>> edit.kind, edit.coefficient, edit.unit, edit.positions
        ('add', 2.0, 'unit', 'all')
    """

    kind: str
    direction: Direction | None = None
    coefficient: float | None = None
    unit: Unit = "unit"
    layers: tuple[int, ...] | None = None
    sites: tuple[Site, ...] | None = None
    positions: Positions = "all"
    facts: TargetFacts = NO_FACTS
    settings: BaseModel | None = None
    subspace: Subspace | None = None
    gate: Gate | None = None

    def __post_init__(self) -> None:
        check_settings(self.kind, self.settings)

    def __repr__(self) -> str:
        """The fields that say something: those that are not the default."""
        found = {one.name: getattr(self, one.name) for one in fields(self)}
        said = [f"{one.name}={found[one.name]!r}" for one in fields(self) if found[one.name] is not one.default]
        return f"Intervention({', '.join(said)})"

    @property
    def missing_facts(self) -> tuple[Fact, ...]:
        """What the edit has to know of its target and does not know yet."""
        needed = needed_facts(edit_kind(self.kind), self.unit, self.settings)
        return tuple(fact for fact in needed if not self.facts.knows(fact))

    def with_facts(self, facts: TargetFacts) -> "Intervention":
        """The same edit for a target of which these facts are known, in addition to those that the edit knows.

        Args:
            facts: facts of the target.
        """
        return replace(self, facts=self.facts.joined(facts))

    @property
    def residual_norm(self) -> float | None:
        """The mean norm of the target's own stream at the edited layer, for the unit `residual`; None if it is not known."""
        return self.facts.residual_norm

    @property
    def needs_residual_norm(self) -> bool:
        """Whether the unit is `residual` and the target's norm is not known yet."""
        return "residual norm" in self.missing_facts

    def with_residual_norm(self, norm: float) -> "Intervention":
        """The same edit for a target whose stream has this mean norm at the edited layer.

        Args:
            norm: the mean norm, in units of the target's stream.
        """
        return self.with_facts(TargetFacts(residual_norm=norm))

    def unit_vector(self) -> Float[Tensor, " d_model"]:
        """The direction's unit vector, float32.

        Raises:
            InputError: for an edit without a direction.
        """
        if self.direction is None:
            raise InputError(f"this edit of kind {self.kind!r} has no direction; give one")
        return self.direction.vector

    def several(self) -> Subspace:
        """The directions of an edit that takes several.

        Raises:
            InputError: for an edit without them.
        """
        if self.subspace is None:
            raise InputError(f"this edit of kind {self.kind!r} has no subspace; give one, made with demur.subspace([...])")
        return self.subspace

    @property
    def artefacts(self) -> tuple[Direction, ...]:
        """The directions that the edit uses: none, one or several."""
        if self.subspace is not None:
            return self.subspace.directions
        return () if self.direction is None else (self.direction,)

    def scaled_vector(self) -> Float[Tensor, " d_model"]:
        """The direction's unit vector times the coefficient and its unit.

        Returns:
            The vector, float32.

        Raises:
            InputError: for the unit `residual` if the target's norm is not known, and for an edit without direction or dose.
        """
        if self.direction is None or self.coefficient is None:
            raise InputError(f"an edit of kind {self.kind!r} without a direction and a coefficient has no vector; give both")
        scale = {"unit": 1.0, "raw": self.direction.raw_norm, "residual": self.residual_norm}[self.unit]
        if scale is None:
            raise InputError(
                "a coefficient in units of 'residual' needs the target's mean residual norm; "
                "give it with edit.with_residual_norm(...), or use unit='unit'"
            )
        return self.direction.vector * (self.coefficient * scale)

    def points(self, layout: Layout, n_layers: int) -> tuple[Point, ...]:
        """The points of the stream where this edit acts, in their order along the stream.

        Args:
            layout: where the model's family has its sites.
            n_layers: the number of the model's blocks.

        Returns:
            The points. A point may be named twice, as `resid_post` of one layer and `resid_pre` of the next. It is then returned
            twice for a kind that repeats (adding at both adds twice), and once for other kinds (removing at both removes once).

        Raises:
            InputError: for a site or layer that the model does not have, and for a direction from a tensor with another number of
                layers.
        """
        kind, own = edit_kind(self.kind), self.direction
        layers, sites = self.layers, self.sites
        if layers is None:
            layers = (own.layer,) if kind.own_layer and own is not None else tuple(range(n_layers))
        if sites is None:
            sites = (own.site,) if kind.own_layer and own is not None else layout.sites
        layout.check_sites(sites)
        for each in self.artefacts:
            each.check_grid(n_layers)
        for layer in layers:
            if not 0 <= layer < n_layers:
                raise InputError(f"layer {layer} is out of range: this model has layers 0 to {n_layers - 1}")
        # In this order the points ascend along the stream, and the two names of one point follow each other.
        points = [point(layer, site) for layer in sorted(layers) for site in sorted(sites, key=SITES.index)]
        return tuple(points) if kind.repeats else tuple(dict.fromkeys(points))


RowEdits = Intervention | None | Sequence[Intervention]
"""The edits of one row: none, one edit, or several in order."""


def edit_sequence(edits: RowEdits) -> tuple[Intervention, ...]:
    """A row's edits in the order in which they act."""
    return (edits,) if isinstance(edits, Intervention) else tuple(edits or ())


def ablate(
    direction: Direction | Subspace,
    *,
    layers: Sequence[int] | None = None,
    sites: Sequence[Site | str] | None = None,
    positions: Positions | str = "all",
) -> Intervention:
    """Directional ablation, x' = x - (x.r) r: removes the component along a direction (Arditi et al. 2024, section 2.4).

    Args:
        direction: the direction to remove; its unit vector is r. For a subspace, all components in it are removed.
        layers: the layers where it is removed; every layer by default.
        sites: the sites of those layers; every site of the family by default.
        positions: `all`, `prompt` or `generated`.

    Returns:
        The edit, for `demur.generate` and `demur.steer`.

    Raises:
        InputError: for an unknown site or choice of positions, and for a layer or site that is named twice.

    Example:
        >>> import demur, torch
        >>> direction = demur.from_raw(torch.tensor([3.0, 4.0]), name="d", layer=1)
        >>> demur.ablate(direction, layers=[0, 1], sites=["resid_pre"]).layers
        (0, 1)
    """
    kind = "subspace" if isinstance(direction, Subspace) else "ablate"
    return edit(kind, direction, layers=layers, sites=sites, positions=positions)


def add(
    direction: Direction,
    coefficient: float | int,
    *,
    unit: Unit | str = "unit",
    layers: Sequence[int] | None = None,
    sites: Sequence[Site | str] | None = None,
    positions: Positions | str = "all",
) -> Intervention:
    """Activation addition, x' = x + c r: adds a multiple of a direction (Arditi et al. 2024, section 2.4).

    "Base LLMs refuse too" adds at three sites of one layer: `sites=("resid_pre", "resid_mid", "resid_post")`.

    Args:
        direction: the direction r.
        coefficient: c, negative to subtract.
        unit: the length of r: 1 for `unit`, the norm of the difference of means for `raw`, and the mean norm of the target's own
            stream at the edited layer for `residual`.
        layers: the layers where it is added; the direction's own layer by default.
        sites: the sites of those layers; the direction's own site by default.
        positions: `all`, `prompt` or `generated`.

    Returns:
        The edit, for `demur.generate` and `demur.steer`.

    Raises:
        InputError: for an unknown unit, site or choice of positions, for a coefficient that is not finite, for the unit `raw` if
            the direction's file gives no raw norm, and if neither the direction nor `layers` gives a layer.

    Example:
        >>> import demur, torch
        >>> direction = demur.from_raw(torch.tensor([3.0, 4.0]), name="d", layer=1)
        >>> demur.add(direction, -1.5, unit="raw").scaled_vector()
        tensor([-4.5000, -6.0000])
    """
    return edit("add", direction, coefficient=coefficient, unit=unit, layers=layers, sites=sites, positions=positions)


def edit(
    kind: str,
    direction: Direction | Subspace | None = None,
    *,
    coefficient: float | int | None = None,
    unit: Unit | str = "unit",
    layers: Sequence[int] | None = None,
    sites: Sequence[Site | str] | None = None,
    positions: Positions | str = "all",
    **settings: JsonValue,
) -> Intervention:
    """An edit of any registered kind.

    Args:
        kind: the name of a kind of edit, or `module:Class`.
        direction: the direction, or a subspace for a kind that takes several directions, or nothing for a kind that takes none.
        coefficient: the dose, for kinds that take one.
        unit: what a coefficient of 1 means: `unit`, `raw` or `residual`; see `demur.add`.
        layers: the layers where it acts; by default the direction's own layer or all layers, depending on the kind.
        sites: the sites of those layers; by default the direction's own site or all sites, depending on the kind.
        positions: `all`, `prompt` or `generated`.
        **settings: the kind's further settings.

    Returns:
        The edit, for `demur.generate` and `demur.steer`.

    Raises:
        InputError: for an unknown kind, unit, site, setting or choice of positions, for a direction or coefficient that is
            missing or that the kind does not take, for settings that can change, and if a layer is needed but neither the
            direction nor `layers` gives one.

    Example:
        >>> import demur, torch
        >>> direction = demur.from_raw(torch.tensor([3.0, 4.0]), name="d", layer=1)
        >>> demur.edit("add", direction, coefficient=1.0) == demur.add(direction, 1.0)
        True
    """
    found = edit_kind(kind)
    check_artefact(found, direction)
    if (coefficient is None) == found.takes_dose:
        takes = "needs a coefficient" if found.takes_dose else "takes no coefficient"
        raise InputError(f"an edit of kind {kind!r} {takes}; {'give one' if found.takes_dose else 'leave it out'}")
    if unit not in get_args(Unit):
        raise InputError(f"{unit!r} is not a unit of the coefficient; {nearest(unit, get_args(Unit))}")
    if coefficient is not None and not abs(coefficient) < float("inf"):
        raise InputError(f"the coefficient must be a finite number, not {coefficient}")
    one = direction if isinstance(direction, Direction) else None
    if one is not None:
        check_known(found, one, unit, layers)
    return Intervention(
        kind,
        one,
        None if coefficient is None else float(coefficient),
        cast(Unit, unit),
        checked_layers(layers),
        checked_sites(sites),
        checked_positions(positions),
        settings=checked_settings(kind, found, settings),
        subspace=direction if isinstance(direction, Subspace) else None,
    )
