"""Which completions people label: a stratified random sample, by cell and by what the judges say.

Labels are rare, so they go where they tell most. A completion on which judges disagree is drawn more often than one on which they
agree. How often is stored, so rates can be computed as if every completion had had the same chance.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from heapq import heapify, heapreplace
from random import Random
from typing import NamedTuple

from demur.analysis.cell import Cell
from demur.analysis.judging.cell_groups import group_of
from demur.runs.labelling.label_records import FrameRow, Stratum
from demur.runs.rows import StoredVerdict

LEAST = 2
"""Every stratum gets so many labels before any gets more, because one label alone tells nothing of how labels vary."""

_PER_STRATUM = 4
"""Cells are put together until the sample has so many labels for each stratum."""

_SPREAD = {"agree": 0.2, "disagree": 0.5, "unknown": 0.5}
"""The guessed standard deviation of labels beyond the judges: 4 % of verdicts are wrong where judges agree, half elsewhere."""


class Drawable(NamedTuple):
    """A completion that can be drawn, with what the judges say of it: `refusal agree`, `other disagree`, `unknown`, ..."""

    cell: str
    position: int
    said: str


def drawable(places: Mapping[str, set[int]], verdicts: Sequence[StoredVerdict], judges: Sequence[str]) -> list[Drawable]:
    """Every stored completion with what the judges say of it.

    Args:
        places: cell -> positions of its stored completions.
        verdicts: all verdicts.
        judges: the judges of the run; the first one tells refusals from others.
    """
    refusals: dict[tuple[str, int], dict[str, bool]] = defaultdict(dict)
    for row in verdicts:
        if row.judge in judges:
            refusals[row.cell, row.position][row.judge] = row.refusal
    found = []
    for cell, positions in places.items():
        for position in sorted(positions):
            said = refusals.get((cell, position), {})
            first = said.get(judges[0]) if judges else None
            words = "unknown"
            if first is not None:
                words = f"{'refusal' if first else 'other'} {'agree' if len(set(said.values())) == 1 else 'disagree'}"
            found.append(Drawable(cell, position, words))
    return found


def drawn_sample(
    units: Sequence[Drawable], cells: Sequence[Cell], n: int, seed: int, known: Sequence[Stratum] = ()
) -> tuple[list[Stratum], list[FrameRow]]:
    """Draw a sample, or make one larger.

    Args:
        units: the completions that can be drawn and are in no stratum yet.
        cells: the cells of the run.
        n: the size of the whole sample.
        seed: the seed of the random places.
        known: the strata of an earlier, smaller sample. Completions in them that were drawn stay drawn.

    Returns:
        All strata with how many are taken of each, and the new completions with their stratum and their random place in it.
    """
    prefix = f"{len(known)}: " if known else ""
    names = [prefix + name for name in _strata_of(units, cells, n)]
    members: dict[str, list[Drawable]] = defaultdict(list)
    for unit, name in zip(units, names, strict=True):
        members[name].append(unit)
    rows = []
    for name, inside in members.items():
        order = sorted(inside)
        Random(f"{seed} {name}").shuffle(order)
        rows += [FrameRow(unit.cell, unit.position, name, place) for place, unit in enumerate(order)]
    strata = [*known, *(Stratum(name, len(inside), 0) for name, inside in members.items())]
    return allocated(strata, n), rows


def allocated(strata: Sequence[Stratum], n: int) -> list[Stratum]:
    """Spread a sample over strata.

    Strata get more if they are larger and if judges disagree in them, in proportion to the square root of their size times the
    guessed spread of labels. This power allocation (Bankier 1988) lies between that of Neyman (1934), which is best for the rate
    over all completions, and equal numbers, which are best for comparing cells. Each draw goes to the stratum that has least for
    its share (Wright 2012), so a larger sample contains every smaller one.

    Args:
        strata: the strata with what is taken of them so far. Nothing is given back.
        n: the size of the sample.

    Returns:
        The strata with how many are taken of each.

    Example:
        >>> [one.taken for one in allocated([Stratum("a, other agree", 80, 0), Stratum("a, other disagree", 20, 0)], 13)]
        [6, 7]
    """
    taken = {one.name: one.taken for one in strata}

    def priority(one: Stratum) -> tuple[bool, bool, float]:
        """Smaller is earlier."""
        count = taken[one.name]
        weight = one.size**0.5 * _SPREAD[one.name.rpartition(" ")[2]]
        return count >= one.size, count >= LEAST, -weight / (count * (count + 1)) ** 0.5 if count else -weight

    queue = [(priority(one), index) for index, one in enumerate(strata)]
    heapify(queue)
    for _ in range(min(n, sum(one.size for one in strata)) - sum(taken.values())):
        _, index = queue[0]
        taken[strata[index].name] += 1
        heapreplace(queue, (priority(strata[index]), index))
    return [one._replace(taken=taken[one.name]) for one in strata]


def _strata_of(units: Sequence[Drawable], cells: Sequence[Cell], n: int) -> list[str]:
    """The stratum of each completion: its cell, or as many cells together as the size of the sample demands."""
    by_key = {cell.key: cell for cell in cells}
    for level in range(4):
        names = [", ".join((*_place(by_key[unit.cell], level), unit.said)) for unit in units]
        if _PER_STRATUM * len(Counter(names)) <= n:
            break
    return names


def _place(cell: Cell, level: int) -> tuple[str, ...]:
    group = group_of(cell)
    by_level: Sequence[tuple[str, ...]] = (
        (cell.key,),
        (group.target, group.prompt, group.instructions, group.edit),
        (group.target, group.prompt, group.edit),
        (),
    )
    return by_level[level]
