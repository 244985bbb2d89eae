"""Phrases for a cell in a sentence: its checkpoint, its direction, its dose, its rate, and where its edit acts."""

import json
from collections.abc import Mapping, Sequence

from demur.analysis.cell import Cell, Comparison, JudgedCell, Null
from demur.core import number_format
from demur.core.edit_words import WHEN, EditWords, setting_text

Words = Mapping[str, EditWords]
"""Action -> its words, in the order of a report."""

_UNITS = {"unit": "unit vectors", "raw": "x its raw norm", "residual": "x the residual norm"}


def capitalised(text: str) -> str:
    """A sentence whose first letter is a capital; no other letter is changed."""
    return text[:1].upper() + text[1:]


def uncapitalised(text: str) -> str:
    """A sentence with a small first letter, to continue another sentence."""
    return text[:1].lower() + text[1:]


def rate_text(cell: JudgedCell) -> str:
    """A cell's rate and interval in per cent."""
    return number_format.estimate(cell.rate, cell.ci95, cell.n)


def change_text(row: Comparison) -> str:
    """The change of a rate: from what to what, and the difference with its interval."""
    before, after = (number_format.percent(rate, row.n) for rate in (row.baseline_rate, row.rate))
    if row.ci95 is None:
        return f"from {before} to {after}"  # earlier versions stored no interval
    return f"from {before} to {after}, {number_format.change(row.difference, row.ci95, row.n)}"


def null_text(null: Null, n: int, noun: str) -> str:
    """What the null directions of one kind do, such as "5 random directions give 87 to 93 %, p = 0.01 against them".

    Args:
        null: the null directions.
        n: the number of instructions.
        noun: what the edit takes.
    """
    kind = f"{null.kind or 'null'} {noun or 'edit'}"
    who = f"1 {kind} gives" if null.n == 1 else f"{null.n} {kind}s give"
    rates = dict.fromkeys(number_format.percent(rate, n) for rate in null.reach or ())
    reach = " to ".join(rates).replace(" %", "", len(rates) - 1)
    what = " in probability" if null.outcome == "probability" else ""
    return f"{who} {reach}{what}" + ("" if null.p is None else f", {number_format.p_in_words(null.p)} against them")


def named(name: str) -> str:
    """A name in a sentence. Quotes set it apart, because a checkpoint may be called `before` or `chat`."""
    return f'"{name}"'


def target_text(cell: Cell, cells: Sequence[Cell]) -> str:
    """A cell's checkpoint, and its prompt format if the checkpoint has several among `cells`."""
    several = len(prompts_of(cell, cells)) > 1
    return f"{named(cell.target)} under {named(cell.prompt)}" if several else named(cell.target)


def prompts_of(cell: Cell, cells: Sequence[Cell]) -> set[str]:
    """The prompt formats of a cell's checkpoint among `cells`."""
    return {other.prompt for other in cells if other.target == cell.target}


def source_text(cell: Cell) -> str:
    """The checkpoint that a cell's direction was read from, and its prompt format if the checkpoint has several."""
    return " under ".join(map(named, _arm(cell).split(".", 1)))


def is_own(cell: Cell) -> bool:
    """Whether the direction was read from the same arm that it is used in."""
    return cell.source == cell.target and _arm(cell) in (cell.target, f"{cell.target}.{cell.prompt}")


def _arm(cell: Cell) -> str:
    # A direction is named after its arm: `checkpoint` or `checkpoint.prompt`. A study with several seeds of training pairs,
    # estimators, or layers adds `.pairsN`, the estimator, and `.layerN`. Names of checkpoints and prompts have no dots.
    if cell.source_prompt is not None and cell.dimension + len(cell.estimator) > 1:
        whole = f"{cell.source}.{cell.source_prompt}"
        return whole if f"{cell.direction}.".startswith(f"{whole}.") else str(cell.source)
    return str(cell.direction).removesuffix(f".layer{cell.layer}").removesuffix(f".pairs{cell.pairs_seed}")


def drawn_text(cell: Cell) -> str:
    """The seed of the training pairs and the estimator of a cell's direction, if they are not those of all others; else empty."""
    drawn = f"training pairs {cell.pairs_seed}" if f".pairs{cell.pairs_seed}" in str(cell.direction) else ""
    several = f"{cell.dimension} directions" if cell.dimension > 1 else ""
    found = f"{several} by {' and '.join(cell.estimator.split('+'))}".strip() if cell.estimator else several
    return ", ".join(fact for fact in (drawn, found) if fact)


def moved_text(cell: Cell) -> str:
    """That the direction was read under another prompt format than the one that it is used under; else empty."""
    return f"read under {named(str(cell.source_prompt))}, used under {named(cell.prompt)}" if cell.crosses_formats else ""


def edit_text(words: EditWords, whose: str) -> str:
    """The edit with the owner of its direction: "adding chat's direction". Without a direction there is no owner."""
    return f"{words.doing} {whose} {words.noun}" if words.noun else words.doing


def dose_text(cell: Cell) -> str:
    """A coefficient with its unit; empty if the edit has none."""
    if cell.coefficient is None:
        return ""
    return f"{cell.coefficient:g} {_UNITS[cell.unit]}" if cell.unit else f"coefficient {cell.coefficient:g}"


def one_of_each_place(cells: Sequence[Cell]) -> list[Cell]:
    """One of the cells for each combination of layers, sites, positions and settings: as good as all for `where_it_acts`."""
    places = {(cell.layers, cell.sites, cell.positions, json.dumps(cell.settings, sort_keys=True)): cell for cell in cells}
    return list(places.values())


def where_it_acts(cell: Cell, alike: Sequence[Cell], words: EditWords) -> list[str]:
    """Layers, sites, positions and settings of an edit, if a sentence needs them.

    Args:
        cell: the edited cell.
        alike: the cells of the same kind of edit, from which the phrases should distinguish this cell.
        words: the words for the cell's action.

    Returns:
        One phrase for each of layers, sites, positions and settings in which the cells differ. Layers are also named if they
        are not the default ones of the kind, and a gate always.
    """
    facts = []
    if cell.layers:
        facts.append(f"{words.done} at layer{'s' if len(cell.layers) > 1 else ''} {', '.join(map(str, cell.layers))}")
    elif any(other.layers for other in alike):
        facts.append(f"{words.done} there" if words.own_layer else f"{words.done} at every layer")
    if cell.sites and len({other.sites for other in alike}) > 1:
        facts.append("at all sites" if cell.sites == ("all",) else f"at {' and '.join(cell.sites)}")
    if cell.positions and len({other.positions for other in alike}) > 1:
        facts.append(f"{cell.positions} positions")
    facts += [
        setting_text(name, value) if name == WHEN else f"{name} {value}"
        for name, value in cell.settings.items()
        if name == WHEN or any(other.settings.get(name) != value for other in alike)
    ]
    return facts
