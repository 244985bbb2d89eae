"""Lists in a study where one entry is usual: several coefficients of one intervention, several revisions of one checkpoint.

`coefficient = "ladder"` is a list of five coefficients.

They are written out as single entries when a study is read. So a study with a list is the same as one that names each entry.
"""

import re
from collections.abc import Mapping
from typing import Any

from demur.study.spec_fields import SELECT

LADDER = "ladder"
"""The value of a coefficient that stands for five doses, each twice the one before."""

LADDERS = {"raw": [0.25, 0.5, 1.0, 2.0, 4.0], "residual": [0.05, 0.1, 0.2, 0.4, 0.8]}
"""The doses of a ladder for each unit that has one. A coefficient of the unit vector means another dose in each checkpoint."""

_COMMIT = re.compile(r"[0-9a-f]{40}")


def written_out(data: Any) -> Any:
    """A study's plain data without such lists.

    Args:
        data: the study as TOML gives it.

    Returns:
        The same data, with one intervention for each coefficient and one checkpoint for each revision. The checkpoints of
        `[checkpoints.NAME]` are called NAME-REVISION, and `sources` and `targets` that name NAME, or an arm NAME/PROMPT, name all
        of them. Data without such lists are returned as they are.

    Raises:
        ValueError: for an empty list, one that repeats an entry, or one with "select"; for a ladder of a unit that has none; for
            revisions that give equal names.
    """
    if not isinstance(data, dict):
        return data
    result = dict(data)
    if isinstance(data.get("checkpoints"), dict):
        names, result["checkpoints"] = _revisions(data["checkpoints"])
    else:
        names = {}
    if isinstance(data.get("interventions"), list):
        edits = [one for number, edit in enumerate(data["interventions"]) for one in _doses(edit, number)]
        result["interventions"] = [_named_anew(edit, names) for edit in edits]
    return result


def edit_numbers(data: Any) -> tuple[int, ...]:
    """Where each intervention of the written-out study stands in the data: an entry with a list gives several interventions.

    Example:
        >>> edit_numbers({"interventions": [{"kind": "add", "coefficient": [1.0, 2.0]}, {"kind": "ablate"}]})
        (0, 0, 1)
    """
    edits = data.get("interventions") if isinstance(data, dict) else None
    return tuple(number for number, edit in enumerate(edits if isinstance(edits, list) else []) for _ in _doses(edit, number))


def _doses(edit: Any, number: int) -> list[Any]:
    if not isinstance(edit, dict):
        return [edit]
    key = f"interventions.{number}.coefficient"
    if edit.get("coefficient") == LADDER:
        unit = edit.get("unit", "unit")
        if unit not in LADDERS:
            raise ValueError(f'{key} is "{LADDER}", which needs unit = "residual" or unit = "raw", not {unit!r}')
        return [{**edit, "coefficient": dose} for dose in LADDERS[unit]]
    if not isinstance(edit.get("coefficient"), list):
        return [edit]
    doses = _different(edit["coefficient"], key)
    if SELECT in doses:
        raise ValueError(f'{key} has "select" in a list; write "select" alone, and the doses to try in selection.doses')
    return [{**edit, "coefficient": dose} for dose in doses]


def _revisions(checkpoints: Mapping[str, object]) -> tuple[dict[str, list[str]], dict[str, object]]:
    """The new names of each checkpoint with a list of revisions, and all checkpoints."""
    names: dict[str, list[str]] = {}
    result: dict[str, object] = {}
    for name, spec in checkpoints.items():
        if not isinstance(spec, dict) or not isinstance(spec.get("revision"), list):
            found = {name: spec}
        else:
            key = f"checkpoints.{name}.revision"
            revisions = _different(spec["revision"], key)
            found = {f"{name}-{_short(revision)}": {**spec, "revision": revision} for revision in revisions}
            if len(found) < len(revisions):
                raise ValueError(f"{key} has revisions whose names differ only in other characters than letters, digits, - and _")
            names[name] = list(found)
        taken = next((one for one in found if one in result or (one != name and one in checkpoints)), None)
        if taken is not None:
            raise ValueError(f"checkpoints.{name}.revision is a list, which makes a checkpoint {taken!r}; there is another one")
        result.update(found)
    return names, result


def _short(revision: object) -> str:
    """A revision as a part of a name: a commit's first eight digits; other characters than letters and digits become -."""
    text = str(revision)
    return text[:8] if _COMMIT.fullmatch(text) else re.sub(r"[^A-Za-z0-9_]+", "-", text).strip("-")


def _named_anew(edit: Any, names: Mapping[str, list[str]]) -> Any:
    if not isinstance(edit, dict) or not names:
        return edit
    changed: dict[str, object] = {}
    for key in ("sources", "targets"):
        if isinstance(edit.get(key), list):
            changed[key] = [new for old in edit[key] for new in _each_revision(old, names)]
    return {**edit, **changed}


def _each_revision(name: object, names: Mapping[str, list[str]]) -> list[object]:
    if not isinstance(name, str):
        return [name]
    checkpoint, slash, prompt = name.partition("/")
    return [f"{new}{slash}{prompt}" for new in names.get(checkpoint, [checkpoint])]


def _different(values: list[Any], key: str) -> list[Any]:
    if not values:
        raise ValueError(f"{key} is an empty list; give at least one value")
    twice = next((value for index, value in enumerate(values) if value in values[:index]), None)
    if twice is not None:
        raise ValueError(f"{key} has {twice!r} twice; list it once")
    return values
