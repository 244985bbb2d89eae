"""Controls of one kind as one row: a study may have twenty of each, and twenty bars would hide everything else.

So are the directions of other checkpoints in one target, if a study has many checkpoints.

A pool is the controls of one kind at the same edit of the same cell, under one judge. It is shown by its median, lowest and
highest rate. The data files keep each control.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from demur.analysis.cell import Cell
from demur.analysis.manifest import DirectionFacts
from demur.core import number_format
from demur.report.cell_view import Entry, LabelShares

MANY = 3
"""From this number on, tables and figures of the page show the controls of one kind as one row. Two are shown one by one."""

MANY_OTHERS = 16
"""From this number on, they show the directions of other checkpoints in a target as one row. The figure of transfer does not."""


@dataclass(frozen=True)
class Spread:
    """How the rates of a pool are spread, as fractions.

    Attributes:
        low: the lowest rate.
        middle: the median.
        high: the highest rate.
        n: the number of completions of each cell.
    """

    low: float
    middle: float
    high: float
    n: int

    @classmethod
    def of(cls, pool: Sequence[Entry]) -> "Spread":
        """The spread of a pool's rates."""
        rates = [entry.rate for entry in pool]
        return cls(min(rates), median(rates), max(rates), max(entry.n for entry in pool))

    @property
    def pieces(self) -> tuple[str, ...]:
        """The median and the range in brackets, between which a line may end; only the median if all rates are the same."""
        middle = number_format.percent(self.middle, self.n)
        low, high = (number_format.percent(rate, self.n).removesuffix(" %") for rate in (self.low, self.high))
        return (middle,) if low == high else (middle, f"({low} to {high})")

    def __str__(self) -> str:
        return " ".join(self.pieces)


def kind_of(control: Cell | DirectionFacts) -> str:
    """The kind of a control. Runs of earlier versions name only the control itself, such as random-1."""
    return control.control_kind or (control.source or "").rstrip("0123456789").rstrip("-")


def edit_key(entry: Entry) -> tuple[object, ...]:
    """What was done, without the direction it was done with: equal for a real direction and its controls at the same setting."""
    cell = entry.cell
    return (
        *(cell.intervention, cell.layer, cell.layers, cell.sites, cell.positions, cell.coefficient, cell.unit),
        json.dumps(cell.settings, sort_keys=True),
    )


def pooled(found: Iterable[Entry], *, others: bool = False) -> list[list[Entry]]:
    """The entries in their order, with the controls of one pool together.

    Args:
        found: the entries.
        others: whether the directions of other checkpoints than the target are a pool too.
    """
    pools: dict[object, list[Entry]] = {}
    for entry in found:
        own = (entry.target, entry.instructions, entry.judge, _kind(entry), edit_key(entry))
        pooled_here = entry.control or (others and _from_another(entry))
        pools.setdefault(own if pooled_here else (entry.key, entry.judge), []).append(entry)
    return list(pools.values())


def folded(found: Iterable[Entry]) -> list[list[Entry]]:
    """The entries in their order, with many controls of one pool together, and many directions of other checkpoints in a target.

    Fewer than `MANY` controls and fewer than `MANY_OTHERS` other directions stay alone.
    """
    parts: list[list[Entry]] = []
    for pool in pooled(found, others=True):
        parts += [pool] if len(pool) >= _fewest(pool[0]) else [[entry] for entry in pool]
    return parts


def _kind(entry: Entry) -> str:
    return kind_of(entry.cell) if entry.control else "other checkpoints' directions"


def _from_another(entry: Entry) -> bool:
    return entry.cell.direction is not None and entry.source != entry.cell.target


def _fewest(entry: Entry) -> int:
    return MANY if entry.control else MANY_OTHERS


def pool_shares(pool: Sequence[Entry]) -> LabelShares | None:
    """The kinds of answers in all completions of a pool; None if no judge has more than two labels."""
    known = [entry.shares for entry in pool if entry.shares is not None]
    if not known:
        return None
    labels = dict.fromkeys(label for one in known for label, _ in one.counts)
    return LabelShares(known[0].judge, tuple((label, sum(dict(one.counts).get(label, 0) for one in known)) for label in labels))


def pool_label(pool: Sequence[Entry], label: Callable[[Entry], str]) -> str:
    """The number and the kind of a pool's controls, and what their own labels have in common behind the name of the control."""
    # A label begins with the name of the control, or of the checkpoint that the direction came from.
    rests = {label(entry).removeprefix(entry.source or "") for entry in pool}
    rest = rests.pop() if len(rests) == 1 else ""
    return f"{len({entry.cell.direction for entry in pool})} {_kind(pool[0])}{rest}"


def row_labels(found: Sequence[Entry], label: Callable[[Entry], str], *, others: bool = False) -> dict[str, str]:
    """The label of the row of each entry by its key: its own, or that of the controls of its kind and edit if they are many.

    Args:
        found: entries of one judge that are shown together.
        label: the label of an entry that has a row to itself.
        others: whether the directions of other checkpoints share a row too, if they are many.
    """
    pools: dict[object, list[Entry]] = {}
    for entry in found:
        if entry.control or (others and _from_another(entry)):
            pools.setdefault((_kind(entry), edit_key(entry)), []).append(entry)
    labels = {entry.key: label(entry) for entry in found}
    for pool in pools.values():
        if len({entry.cell.direction for entry in pool}) >= _fewest(pool[0]):
            labels |= dict.fromkeys((entry.key for entry in pool), pool_label(pool, label))
    return labels
