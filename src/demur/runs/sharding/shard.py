"""A shard: one of N parts of a study, each carried out in a folder of its own. Its cells follow from the plan alone."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from pydantic import JsonValue

from demur.core.errors import InputError
from demur.study.machines.contiguous_parts import contiguous_parts
from demur.study.planned.pairings import pairings
from demur.study.preflight import Ready

if TYPE_CHECKING:
    from demur.runs.store import Store

ENTRY = "shard"
"""The entry of a run folder that holds a shard."""


@dataclass(frozen=True)
class Shard:
    """Which part of a study it is.

    Attributes:
        number: the number of the shard, from 1.
        of: how many shards there are.

    Example:
        >>> Shard.parsed("3/8")
        Shard(number=3, of=8)
    """

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @classmethod
    def parsed(cls, text: str) -> Self:
        """The shard that a text such as `3/8` names.

        Raises:
            InputError: for any other text.
        """
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise InputError(f"{text!r} is no shard; give I/N with I from 1 to N, for example --shard 3/8")
        return cls(int(found[1]), int(found[2]))


@dataclass(frozen=True)
class ShardWork:
    """What a shard makes for the whole run. It may also need directions and cells that other shards make too.

    Attributes:
        cells: the keys of its cells, also of those of null directions without completions.
        arms: the arms whose directions, means and measurements it makes.
        pairs: the pairs of arms that it measures, by name.
    """

    cells: frozenset[str]
    arms: frozenset[str]
    pairs: frozenset[str]


def shard_work(ready: Ready, shard: Shard) -> ShardWork:
    """Divide a study.

    The cells are in the order of their targets, so that a shard generates with few checkpoints. They are cut into parts with
    about the same number of new tokens. An arm belongs to the shard that has its first cell. Pairs go round the shards.

    Args:
        ready: the checked plan.
        shard: which shard.

    Returns:
        The shard's part of the work.

    Raises:
        InputError: for more shards than cells.
    """
    plan = ready.plan
    cells = [
        cell for name in plan.study.checkpoints for cell in (*plan.cells, *plan.null_cells) if cell.target.checkpoint == name
    ]
    if shard.of > len(cells):
        raise InputError(f"the study has {len(cells)} cells, which cannot be divided into {shard.of} shards; ask for fewer")
    # A cell without completions is measured with one forward pass for each instruction.
    tokens = [len(ready.material[cell.instructions].test) * (plan.study.max_new_tokens if cell.answered else 1) for cell in cells]
    parts = contiguous_parts(tokens, shard.of)
    mine = parts[shard.number - 1] if shard.number <= len(parts) else range(0)
    first: dict[str, int] = {}
    for index, cell in enumerate(cells):
        first.setdefault(cell.target.name, index)
    return ShardWork(
        cells=frozenset(cells[index].key for index in mine),
        arms=frozenset(arm.name for arm in plan.arms if first.get(arm.name, 0) in mine),
        pairs=frozenset([pair.subject for pair in pairings(plan)][shard.number - 1 :: shard.of]),
    )


def remember_shard(store: "Store", shard: Shard | None, *, work: ShardWork | None = None, done: bool = False) -> None:
    """Write down which shard a folder holds, or check it.

    Args:
        store: the run folder.
        shard: the shard that is to be carried out there; None for the whole study.
        work: what the shard makes; needed for a shard.
        done: whether all of it is there.

    Raises:
        InputError: if the folder holds another shard, or a shard instead of a whole run, or the other way round.
    """
    stored = store.recall(ENTRY)
    there = shard_of(stored)
    if store.begun and there != shard:
        holds = "a whole run" if there is None else f"the shard {there}"
        asked = "the whole study" if shard is None else f"the shard {shard}"
        way = "" if there is None else f"; add --shard {there} to go on with it"
        raise InputError(
            f"{str(store.folder)!r} holds {holds} of this study, and {asked} was asked for{way}; give another --out, or --fresh "
            "to start over"
        )
    if shard is None and there is not None:
        store.forget(ENTRY)  # an earlier call was killed before the run had begun
    if shard is not None and work is not None:
        store.remember(ENTRY, {"number": shard.number, "of": shard.of, "cells": [*sorted(work.cells)], "done": done})


def shard_of(entry: JsonValue) -> Shard | None:
    """The shard that an entry of a run folder names; None if it holds no shard."""
    facts: Mapping[str, JsonValue] = entry if isinstance(entry, dict) else {}
    number, of = facts.get("number"), facts.get("of")
    return Shard(number, of) if isinstance(number, int) and isinstance(of, int) else None
