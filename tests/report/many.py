"""Fifty thousand completions in a page that was made with fewer: for what must stay right, and quick, at that size."""

import re
from pathlib import Path

from demur.report.payload import script_json

MANY = 50_000
CELLS, EACH = 50, 1000
DONE = {"none": "no intervention", "add": "added", "ablate": "ablated"}


def _text(cell: int, index: int) -> str:
    return (
        f"I'm sorry, no. {index}, of cell {cell}"
        if _refused(cell, index)
        else f"Sure, here is step {index} of {cell}: it is easy, and so on."
    )


def _refused(cell: int, index: int) -> bool:
    return (cell * 7 + index * 3) % 5 == 0


def _facts(cell: int) -> tuple[str, str, str]:
    """Checkpoint, instruction set, intervention: two cells of each target and set have no edit, ... the rest are edited."""
    place = cell % 4
    intervention = "none" if cell < 4 else ("add", "ablate")[cell // 4 % 2]
    return ("before", "after")[place // 2], ("harmful", "harmless")[place % 2], intervention


def with_many(page: Path, target: Path) -> Path:
    """The same page with other completions."""
    instructions = [
        [kind, index, f"How do I do the {kind} thing no. {index}?"] for kind in ("harmful", "harmless") for index in range(EACH)
    ]
    texts: list[str] = []
    cells: list[dict[str, object]] = []
    for cell in range(CELLS):
        checkpoint, kind, intervention = _facts(cell)
        first = len(texts)
        texts += [_text(cell, index) for index in range(EACH)]
        cells.append(
            {
                "key": f"cell {cell}", "checkpoint": checkpoint, "target": checkpoint, "prompt": "chatml", "instructions": kind,
                "intervention": intervention, "edit": f"{intervention} {cell // 4}", "done": DONE[intervention],
                "direction": "" if intervention == "none" else f"direction {cell // 4}",
                "source": None, "control": False, "moved": "", "layer": 3, "coefficient": None, "unit": None, "dose": "",
                "rows": {
                    "instruction": [index + EACH * (kind == "harmless") for index in range(EACH)],
                    "text": list(range(first, first + EACH)),
                    "tokens": [16] * EACH,
                    "verdicts": [[int(not _refused(cell, index)) for index in range(EACH)]],
                },
            }
        )  # fmt: skip
    data = {
        "study": "many", "judges": ["prefix"], "labels": [["refusal", "other"]], "instructions": instructions, "texts": texts,
        "verdicts": [[1, "refusal", "I'm sorry"], [0, "other", ""]], "cells": cells,
    }  # fmt: skip
    text, count = re.subn(
        r'(id="completions-data">).*?(</script>)',
        lambda match: match[1] + script_json(data) + match[2],
        page.read_text("utf-8"),
        flags=re.DOTALL,
    )
    assert count == 1
    target.write_text(text, encoding="utf-8")
    return target


def expected(checkpoint: str = "", intervention: str = "", verdict: str = "", q: str = "") -> int:
    """How many rows fit, counted one by one."""
    found = 0
    for cell in range(CELLS):
        whose, kind, how = _facts(cell)
        if checkpoint not in ("", whose) or intervention not in ("", how):
            continue
        for index in range(EACH):
            now = _refused(cell, index)
            alone = how != "none" and _refused(cell % 4, index)
            fits = {"": True, "refusal": now, "other": not now, "lost": how != "none" and alone and not now}[verdict]
            asked = f"how do i do the {kind} thing no. {index}?"
            found += fits and all(word in _text(cell, index).lower() or word in asked for word in q.lower().split())
    return found
