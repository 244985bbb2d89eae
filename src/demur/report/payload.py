"""Completions as the JSON in the page. Each text is stored once, in a form that is safe inside a script element.

Each cell stores its rows as columns of indices, so that fifty thousand rows need little space. The page finds the baseline of a
row by target, instruction set and instruction.
"""

import json
import re
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypedDict, TypeVar

from demur.analysis.judging.rating_records import Labeller
from demur.core.errors import InputError
from demur.report.cell_view import Entry, is_verdict

if TYPE_CHECKING:
    import pandas

_UNSAFE = re.compile("[<>&\u2028\u2029\ud800-\udfff]")


def script_json(value: object) -> str:
    """JSON that is safe in any HTML element: every `<`, `>`, `&`, line separator and lone surrogate in it is escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


class CellRows(TypedDict):
    """The completions of a cell as columns of equal length: one index into each table, and `tokens`, which are counts.

    `verdicts` has one column for each judge. The index of a verdict is -1 if the judge failed and gave none.
    """

    instruction: list[int]
    text: list[int]
    tokens: list[int]
    verdicts: list[list[int]]


class PageCell(TypedDict):
    """A cell with its completions. `done` is what was done to the direction, in words; `edit` names its edit in addresses."""

    key: str
    checkpoint: str
    target: str
    prompt: str
    instructions: str
    intervention: str
    edit: str
    done: str
    direction: str
    source: str | None
    moved: str
    control: bool
    layer: int | None
    coefficient: float | None
    unit: str | None
    layers: tuple[int, ...] | None
    sites: tuple[str, ...] | None
    positions: str | None
    dose: str
    rows: CellRows


class PageData(TypedDict):
    """The data for the page's table of completions.

    An instruction is (set, index, text), a verdict is (refusal, label, evidence). `labels` are those of each judge, in its order.
    The last `people` of the judges are people who labelled completions; they have no entry in `labels`.
    """

    study: str
    judges: list[str]
    people: int
    labels: list[list[str]]
    instructions: list[tuple[str, int, str]]
    texts: list[str]
    verdicts: list[tuple[int, str, str]]
    cells: list[PageCell]


Value = TypeVar("Value", bound=Hashable)


class _Table(Generic[Value]):
    """Numbers the values that it is given. Equal values get the same number."""

    def __init__(self) -> None:
        self.values: dict[Value, int] = {}

    def index(self, value: Value) -> int:
        return self.values.setdefault(value, len(self.values))


def payload(
    study: str,
    found: Sequence[Entry],
    labels: Mapping[str, Sequence[str]],
    completions: "pandas.DataFrame",
    people: Sequence[Labeller] = (),
) -> PageData:
    """The page's data.

    Args:
        study: the study's name.
        found: the entries of the cells, under one judge or several.
        labels: all judges, each with its labels.
        completions: one row for each completion, with every judge's verdict.
        people: who labelled completions. Their labels stand beside the verdicts of judges.

    Returns:
        Tables of texts, and for each cell columns that point into them.

    Raises:
        InputError: if the completions do not belong to the entries, or have no verdicts of a judge.
    """
    judges, by_key = list(labels), {entry.key: entry for entry in reversed(found)}
    wanted = ["key", "index", "instruction", "completion", "n_tokens"]
    wanted += [f"{judge}_{field}" for judge in judges for field in ("refusal", "label", "evidence")]
    _check(by_key, wanted, completions)
    texts: _Table[str] = _Table()
    instructions: _Table[tuple[str, int, str]] = _Table()
    verdicts: _Table[tuple[int, str, str]] = _Table()
    spoken = [person for person in people if f"labelled_{person.name}" in completions.columns]
    # Lists of whole columns: a table for each cell would take most of the time of a large run's page.
    columns = {name: completions[name].tolist() for name in (*wanted, *(f"labelled_{person.name}" for person in spoken))}
    places = _places_by_cell(columns)
    cells = []
    for key in dict.fromkeys(entry.key for entry in found if entry.key in places):
        entry, chosen = by_key[key], places[key]
        rows = CellRows(
            instruction=[
                instructions.index((entry.instructions, int(columns["index"][at]), str(columns["instruction"][at])))
                for at in chosen
            ],
            text=[texts.index(str(columns["completion"][at])) for at in chosen],
            tokens=[int(columns["n_tokens"][at]) for at in chosen],
            verdicts=[
                *(_verdict_numbers(columns, judge, chosen, verdicts) for judge in judges),
                *(_label_numbers(columns, person, chosen, verdicts) for person in spoken),
            ],
        )
        cells.append(_cell(entry, rows))
    return {
        "study": study,
        "judges": [*judges, *(f"{person.name} (person)" for person in spoken)],
        "people": len(spoken),
        "labels": [list(names) for names in labels.values()],
        "instructions": list(instructions.values),
        "texts": list(texts.values),
        "verdicts": list(verdicts.values),
        "cells": cells,
    }


def _places_by_cell(columns: Mapping[str, Sequence[Any]]) -> dict[str, list[int]]:
    """The rows of each cell, in the order of their instructions."""
    places: dict[str, list[int]] = {}
    for place, key in enumerate(columns["key"]):
        places.setdefault(str(key), []).append(place)
    return {key: sorted(found, key=columns["index"].__getitem__) for key, found in places.items()}


def _verdict_numbers(
    columns: Mapping[str, Sequence[object]], judge: str, chosen: Sequence[int], table: _Table[tuple[int, str, str]]
) -> list[int]:
    """The number of each verdict of a judge on these rows; -1 where the judge failed and gave none."""
    refusals, labels, evidence = (columns[f"{judge}_{field}"] for field in ("refusal", "label", "evidence"))
    return [
        table.index((int(bool(refusals[at])), _text(labels[at]), _text(evidence[at]))) if is_verdict(refusals[at]) else -1
        for at in chosen
    ]


def _label_numbers(
    columns: Mapping[str, Sequence[object]], person: Labeller, chosen: Sequence[int], table: _Table[tuple[int, str, str]]
) -> list[int]:
    """The number of each label of a person on these rows, as of a verdict; -1 where the person gave none."""
    labels = [_text(columns[f"labelled_{person.name}"][at]) for at in chosen]
    return [table.index((int(label in person.refusal_labels), label, "")) if label else -1 for label in labels]


def _check(by_key: Mapping[str, Entry], wanted: Sequence[str], completions: "pandas.DataFrame") -> None:
    """Raises `InputError` if the completions do not belong to the entries, or lack a column."""
    missing = [name for name in wanted if name not in completions.columns]
    if missing:
        raise InputError(
            f"the completions lack the columns {', '.join(missing)}, so the page cannot show them; judge the run again"
        )
    unknown = sorted(set(map(str, completions["key"].unique())) - set(by_key))
    if unknown:
        raise InputError(
            f"{len(unknown)} cells have completions but no entry in the summary, the first is {unknown[0]!r}; rebuild the summary"
        )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _cell(entry: Entry, rows: CellRows) -> PageCell:
    cell = entry.cell
    return PageCell(
        key=entry.key,
        checkpoint=cell.target,
        target=entry.target,
        prompt=cell.prompt,
        instructions=entry.instructions,
        intervention=entry.intervention,
        edit=entry.edit,
        done=entry.done,
        direction=entry.direction if entry.edited else "",
        source=entry.source,
        moved=entry.moved,
        control=entry.control,
        layer=cell.layer,
        coefficient=cell.coefficient,
        unit=cell.unit,
        layers=cell.layers,
        sites=cell.sites,
        positions=cell.positions,
        dose=entry.dose,
        rows=rows,
    )
