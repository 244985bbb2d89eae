"""Completions as the JSON that the page carries: every text once, safe inside a script element.

Rows lie cell by cell in columns of indices, so that fifty thousand of them stay small. The page finds a row's baseline by target,
instruction set and instruction. A completion whose cell the summary does not hold, or that a judge left out, is refused.
"""

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from demur.core.errors import InputError
from demur.report.cell_view import Entry

if TYPE_CHECKING:
    import pandas

_UNSAFE = re.compile("[<>&\u2028\u2029\ud800-\udfff]")


def script_json(value: Any) -> str:
    """JSON that can stand in any HTML element: no `<`, `>`, `&`, line separator or lone surrogate stands in it unescaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


class _Table:
    """Values with a number each, the same number for the same value."""

    def __init__(self) -> None:
        self.values: dict[Any, int] = {}

    def index(self, value: Any) -> int:
        return self.values.setdefault(value, len(self.values))


def payload(study: str, found: Sequence[Entry], judges: Sequence[str], completions: "pandas.DataFrame") -> dict[str, Any]:
    """The page's data: tables of texts, and for each cell four columns of equal length that point into them."""
    by_key = {entry.key: entry for entry in found}
    wanted = ["key", "index", "instruction", "completion", "n_tokens"]
    wanted += [f"{judge}_{field}" for judge in judges for field in ("refusal", "label", "evidence")]
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
    unjudged = [judge for judge in judges if completions[f"{judge}_refusal"].isna().any()]
    if unjudged:
        raise InputError(f"the judges {', '.join(unjudged)} have no verdict on some completions; judge the run again")

    texts, instructions, verdicts = _Table(), _Table(), _Table()
    groups = {str(key): group for key, group in completions.groupby("key", sort=False)}
    cells = []
    for key, entry in by_key.items():
        if key not in groups:
            continue
        rows = groups[key].sort_values("index", kind="stable")
        columns = {name: rows[name].tolist() for name in wanted}
        decided = [
            [
                verdicts.index((int(bool(refusal)), _text(label), _text(evidence)))
                for refusal, label, evidence in zip(
                    *(columns[f"{judge}_{field}"] for field in ("refusal", "label", "evidence")), strict=True
                )
            ]
            for judge in judges
        ]
        cells.append(
            _cell(entry)
            | {
                "rows": {
                    "instruction": [
                        instructions.index((entry.instructions, int(index), str(text)))
                        for index, text in zip(columns["index"], columns["instruction"], strict=True)
                    ],
                    "text": [texts.index(str(text)) for text in columns["completion"]],
                    "tokens": [int(count) for count in columns["n_tokens"]],
                    "verdicts": decided,
                }
            }
        )
    return {
        "study": study,
        "judges": list(judges),
        "instructions": list(instructions.values),
        "texts": list(texts.values),
        "verdicts": list(verdicts.values),
        "cells": cells,
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _cell(entry: Entry) -> dict[str, Any]:
    cell = entry.cell
    return {
        "key": entry.key,
        "checkpoint": cell["target"],
        "target": entry.target,
        "prompt": cell["prompt"],
        "instructions": entry.instructions,
        "intervention": entry.intervention,
        "direction": "" if entry.intervention == "none" else entry.direction,
        "source": entry.source,
        "control": entry.control,
        "layer": cell["layer"],
        "coefficient": cell["coefficient"],
        "unit": cell["unit"],
        "layers": cell.get("layers"),
        "sites": cell.get("sites"),
        "positions": cell.get("positions"),
        "dose": entry.dose,
    }
