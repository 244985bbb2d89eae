"""What an edit of the residual stream is, and its arithmetic for a batch whose rows differ.

An intervention is a value: it names no model and registers nothing. `tabulate` turns one intervention per row into tables
that `engine/hooks.py` applies; a row without an edit at some point of the stream passes through bit for bit. Projections are
computed in float32 or better whatever the stream's dtype, and cast back.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from demur.core.errors import InputError, WorkError, nearest
from demur.directions.direction import Direction
from demur.models.layouts import SITES, Layout, Site, point

Unit = Literal["unit", "raw", "residual"]
Positions = Literal["all", "prompt", "generated"]


@dataclass(frozen=True)
class Intervention:
    """One edit: `ablate` removes the direction's component, `add` adds a multiple of it.

    `layers` and `sites` of None mean every layer and every site of the family for `ablate`, the direction's own layer and site
    for `add`. `positions` belong to the prompt, not to the forward chunk: `prompt` acts on the prompt's tokens, `generated` on
    the tokens that follow, so the first generated token already depends on an edit at the last prompt token. `unit` says what a
    coefficient of 1 adds: the unit vector, the raw difference of means, or a vector as long as `residual_norm`, the mean norm
    of the target's own stream at the edited layer.
    """

    kind: Literal["ablate", "add"]
    direction: Direction
    coefficient: float | None = None
    unit: Unit = "unit"
    layers: tuple[int, ...] | None = None
    sites: tuple[Site, ...] | None = None
    positions: Positions = "all"
    residual_norm: float | None = None

    @property
    def needs_residual_norm(self) -> bool:
        """True where the coefficient counts residual norms and the target's has not been measured yet."""
        return self.kind == "add" and self.unit == "residual" and self.residual_norm is None

    def with_residual_norm(self, norm: float) -> "Intervention":
        """The same edit for a target whose stream has this mean norm at the edited layer."""
        return replace(self, residual_norm=norm)

    def added(self) -> Float[Tensor, " d_model"]:
        """The vector that `add` adds at each of its points, float32. Raises `InputError` where a norm is still missing."""
        assert self.coefficient is not None
        scale = {"unit": 1.0, "raw": self.direction.raw_norm, "residual": self.residual_norm}[self.unit]
        if scale is None:
            raise InputError(
                "a coefficient in units of 'residual' needs the target's mean residual norm; "
                "give it with edit.with_residual_norm(...), or use unit='unit'"
            )
        return self.direction.vector * (self.coefficient * scale)

    def points(self, layout: Layout, n_layers: int) -> tuple[int, ...]:
        """The points of the stream where this acts (see `point`). Raises `InputError` for a site or layer that is not there."""
        if self.kind == "ablate":
            layers = tuple(range(n_layers)) if self.layers is None else self.layers
            sites = layout.sites if self.sites is None else self.sites
        else:
            layers = (self.direction.layer,) if self.layers is None else self.layers
            sites = (self.direction.site,) if self.sites is None else self.sites
        layout.check_sites(sites)
        for layer in layers:
            if not 0 <= layer < n_layers:
                raise InputError(f"layer {layer} is out of range: this model has layers 0 to {n_layers - 1}")
        points = [point(layer, site) for layer in layers for site in sites]
        # resid_post of one layer and resid_pre of the next are the same point: removing a component twice removes it once,
        # adding a vector at both adds it twice.
        return tuple(sorted(set(points))) if self.kind == "ablate" else tuple(sorted(points))


def ablate(
    direction: Direction,
    *,
    layers: Sequence[int] | None = None,
    sites: Sequence[Site | str] | None = None,
    positions: Positions | str = "all",
) -> Intervention:
    """Directional ablation, x' = x - (x.r) r, at every layer and site unless told otherwise (Arditi et al. 2024, section 2.4).

    Raises `InputError` for another site or choice of positions.
    """
    return Intervention("ablate", direction, None, "unit", _layers(layers), _sites(sites), _positions(positions))


def add(
    direction: Direction,
    coefficient: float | int,
    *,
    unit: Unit | str = "unit",
    layers: Sequence[int] | None = None,
    sites: Sequence[Site | str] | None = None,
    positions: Positions | str = "all",
) -> Intervention:
    """Activation addition, x' = x + c r, at the direction's own layer and site unless told otherwise (Arditi et al. 2024, 2.4).

    `unit` says how long r is: `unit` 1, `raw` the norm of the difference of means, `residual` the mean norm of the target's own
    stream at the edited layer. Raises `InputError` for another unit, site or choice of positions, for a coefficient that is not
    finite, for `raw` of a direction whose file keeps no length, and where neither the direction nor `layers` says a layer. "Base
    LLMs refuse too" adds at three sites of one layer: `sites=("resid_pre", "resid_mid", "resid_post")`.
    """
    if unit not in get_args(Unit):
        raise InputError(f"{unit!r} is not a unit of the coefficient; {nearest(unit, get_args(Unit))}")
    if not abs(coefficient) < float("inf"):
        raise InputError(f"the coefficient must be a finite number, not {coefficient}")
    if unit == "raw" and not direction.says("raw norm"):
        raise InputError(
            f"direction {direction.name!r} comes from a file that does not say its raw norm, so a coefficient cannot count it; "
            "use unit 'unit' or 'residual'"
        )
    if layers is None and not direction.says("layer"):
        raise InputError(
            f"direction {direction.name!r} comes from a file that does not say its layer; say where to add it, with "
            "layers=[...] in Python or --layer on the command line, or write it down with demur convert --layer"
        )
    return Intervention(
        "add", direction, float(coefficient), cast(Unit, unit), _layers(layers), _sites(sites), _positions(positions)
    )


def _layers(layers: Sequence[int] | None) -> tuple[int, ...] | None:
    if layers is None:
        return None
    if not layers:
        raise InputError("an edit at no layer does nothing; name a layer, or leave layers out")
    if len(set(layers)) < len(layers):
        raise InputError(f"the layers {', '.join(map(str, layers))} name one twice; name each once")
    return tuple(layers)


def _sites(sites: Sequence[Site | str] | None) -> tuple[Site, ...] | None:
    if sites is None:
        return None
    if len(set(sites)) < len(sites):
        raise InputError(f"the sites {', '.join(sites)} name one twice; name each once")
    for site in sites:
        if site not in SITES:
            raise InputError(f"{site!r} is not a site of the residual stream; {nearest(site, SITES)}")
    return tuple(cast(Site, site) for site in sites)


def _positions(positions: Positions | str) -> Positions:
    if positions not in get_args(Positions):
        raise InputError(f"{positions!r} is not a choice of positions; {nearest(positions, get_args(Positions))}")
    return cast(Positions, positions)


@dataclass(frozen=True)
class StreamEdit:
    """What happens at one point of the stream to every row of a batch: x' = x - (x.a) a + b, with zero rows where nothing does.

    `in_prompt` and `in_generated` say per row whether the edit holds on prompt columns and on generated ones; None where all
    rows hold on both.
    """

    ablated: Float[Tensor, "row 1 d_model"] | None
    added: Float[Tensor, "row 1 d_model"] | None
    in_prompt: Bool[Tensor, " row"] | None
    in_generated: Bool[Tensor, " row"] | None

    def on(self, device: torch.device) -> "StreamEdit":
        """The same edit on a device."""
        parts = (self.ablated, self.added, self.in_prompt, self.in_generated)
        return StreamEdit(*(None if part is None else part.to(device) for part in parts))

    def apply(
        self,
        stream: Float[Tensor, "row seq d_model"],
        onto: Float[Tensor, "row seq d_model"],
        generated: Bool[Tensor, " seq"] | None = None,
    ) -> Float[Tensor, "row seq d_model"]:
        """`onto` plus the change that the edit makes to `stream`, in the dtype of `onto`.

        `onto` is the stream itself, or the contribution that a branch is about to add to it. `generated` marks the columns
        that lie behind the prompt; it is needed only where some row's edit holds on a part of the positions. Raises `WorkError`
        where the edit was made for another number of rows.
        """
        rows, working = stream.shape[0], torch.promote_types(onto.dtype, torch.float32)
        for table in (self.ablated, self.added):
            if table is not None and table.shape[0] not in (1, rows):
                raise WorkError(f"a table of edits for {table.shape[0]} rows met a batch of {rows} rows")
        result = onto.to(working)
        mask = None
        if self.in_prompt is not None and self.in_generated is not None:
            if generated is None:
                raise InputError("an edit of prompt or generated positions needs to know where the prompt ends")
            mask = torch.where(generated[None, :], self.in_generated[:, None], self.in_prompt[:, None])[..., None]
        if self.ablated is not None:
            direction = self.ablated.to(working).expand(rows, -1, -1)
            projection = torch.bmm(stream.to(working), direction.transpose(1, 2))
            if mask is not None:
                projection = projection * mask
            # One pass over the rows; a product that is added to them copies them first.
            result = torch.addcmul(result, projection, direction, value=-1)
        if self.added is not None:
            result = result + (self.added if mask is None else self.added * mask)
        return result.to(onto.dtype)


EditTable = dict[int, tuple[StreamEdit, ...]]
"""Point of the stream -> the edits applied there, in order."""

RowEdits = Intervention | None | Sequence[Intervention]


def program(edits: RowEdits) -> tuple[Intervention, ...]:
    """A row's edits in the order in which they apply."""
    return (edits,) if isinstance(edits, Intervention) else tuple(edits or ())


def tabulate(
    rows: Sequence[RowEdits],
    layout: Layout,
    n_layers: int,
    d_model: int,
    device: torch.device | str,
    points: range | None = None,
) -> EditTable:
    """One table for a batch, from each row's intervention (or several, applied in order, or None); at some points if told so.

    Where all rows have the same edits, the table has one row, which holds for all. Raises `InputError` for a direction of another
    width and for a layer or site that the model does not have.
    """
    # Rows of a study share few programs: what is made is made once a program, and rows look up theirs.
    wanted = [program(row) for row in rows]
    places = {one: place for place, one in enumerate(dict.fromkeys(wanted))}
    chosen = None if len(places) == 1 else torch.tensor([places[one] for one in wanted], device=device)
    columns: dict[int, list[list[Intervention]]] = {}
    for one, place in places.items():
        for edit in one:
            if edit.direction.vector.shape[0] != d_model:
                raise InputError(
                    f"direction {edit.direction.name!r} has width {edit.direction.vector.shape[0]}, but this model's residual "
                    f"stream has width {d_model}; use a direction extracted from a checkpoint of that width"
                )
            for where in edit.points(layout, n_layers):
                if points is not None and where not in points:
                    continue
                columns.setdefault(where, [[] for _ in places])[place].append(edit)
    # Sharing tensors between points keeps ablation at all of them at the cost of one table.
    made: dict[tuple[int, ...], StreamEdit] = {}
    table: EditTable = {}
    for where, column in sorted(columns.items()):
        steps = []
        for step in range(max(map(len, column))):
            ops = [own[step] if step < len(own) else None for own in column]
            key = tuple(id(op) for op in ops)
            if key not in made:
                made[key] = _stream_edit(ops, chosen, d_model, device)
            steps.append(made[key])
        table[where] = tuple(steps)
    return table


def _stream_edit(
    ops: Sequence[Intervention | None], chosen: Int[Tensor, " row"] | None, d_model: int, device: torch.device | str
) -> StreamEdit:
    """One step at one point: `ops` of each program, and which program each row has, or None where there is one."""
    ablated = torch.zeros(len(ops), 1, d_model)
    added = torch.zeros(len(ops), 1, d_model)
    for index, op in enumerate(ops):
        if op is not None and op.kind == "ablate":
            ablated[index, 0] = op.direction.vector
        elif op is not None:
            added[index, 0] = op.added()
    kinds = {op.kind for op in ops if op is not None}
    scoped = any(op.positions != "all" for op in ops if op is not None)
    flags = {
        part: torch.tensor([op is not None and op.positions in ("all", part) for op in ops]) for part in ("prompt", "generated")
    }

    tables = ((ablated, "ablate" in kinds), (added, "add" in kinds), (flags["prompt"], scoped), (flags["generated"], scoped))
    on_device = [table.to(device) if needed else None for table, needed in tables]
    return StreamEdit(*(table if table is None or chosen is None else table[chosen] for table in on_device))
