"""Completions of HarmBench: one JSON object from the id of a behaviour to its completions.

Source: centerforaisafety/HarmBench, generate_completions.py: each completion is an object with `test_case` (the prompt) and
`generation`. Files with plain texts in place of these objects are read too; they do not say what was asked.
"""

from collections import Counter
from collections.abc import Mapping

from demur.inputs.completions.completion_rows import CompletionRow, CompletionRows, Json, is_column_name, left_out


def fits(found: Json) -> bool:
    """Whether this is such an object."""
    if not isinstance(found, dict) or not found or not all(isinstance(value, list) for value in found.values()):
        return False
    entries: list[Json] = [entry for value in found.values() for entry in value]
    return bool(entries) and (
        all(isinstance(entry, dict) and "generation" in entry for entry in entries)
        # Lists of texts under names of columns are a table.
        or (all(isinstance(entry, str) for entry in entries) and not any(is_column_name(name) for name in found))
    )


def read(found: Mapping[str, Json]) -> CompletionRows:
    """The completions, in the order of the file."""
    rows: list[CompletionRow] = []
    reasons: Counter[str] = Counter()
    for behaviour, entries in found.items():
        for number, entry in enumerate(entries):
            facts = {"behavior_id": behaviour, "sample": number}
            text = entry if isinstance(entry, str) else entry["generation"]
            asked = None if isinstance(entry, str) else entry.get("test_case")
            if isinstance(text, str):
                rows.append(CompletionRow(text, asked if isinstance(asked, str) else None, facts))
            else:
                reasons["without a text"] += 1
    return CompletionRows("completions of HarmBench", tuple(rows), left_out(reasons, len(rows) + sum(reasons.values())))
