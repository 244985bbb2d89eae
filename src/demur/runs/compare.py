"""Two runs side by side: the cells that both have, with paired tests, and every setting in which the runs differ.

A cell is the same in both where its key is; its verdicts are paired by instruction, over the instructions that both runs asked.
What else differs (weights, layer, prompt text, instructions, versions) is named, and is what a difference of rates may come from.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from demur.analysis.comparison import Agreement, Comparison, Difference, SharedCell
from demur.core.errors import InputError, nearest
from demur.analysis.published_rates import in_words
from demur.runs.run import Run
from demur.core.statistics import LEVEL, Paired, holm, mcnemar, shared
from demur.runs.store import Store
from demur.study.digest import with_defaults
from demur.study.spec import Study

_BESIDE = "beside the weights: "
_SAID_BESIDE = {"settings": "config.json and adapter_config.json", "stop_ids": "end tokens"}
"""What a checkpoint's facts say of it beside its weights, by the facts' keys."""

_SAME_RESULT = ("name", "summary", "batch_tokens", "published")
"""Keys of a study that decide about no result."""

Rows = Sequence[Mapping[str, Any]]
"""A run's completions."""

Sides = Mapping[tuple[str, str], Mapping[str, bool]]
"""(cell key, judge) -> instruction -> refusal."""


def compare_runs(first: Run, second: Run) -> Comparison:
    """What two runs have in common and in what they differ. Raises `InputError` where they share no judged cell."""
    stores = Store.open(first.path), Store.open(second.path)
    rows: list[Rows] = [run.completions().to_dict("records") for run in (first, second)]  # type: ignore[misc]
    sides = _verdicts(first, rows[0]), _verdicts(second, rows[1])
    cells = [{cell["key"]: cell for cell in store.cells()} for store in stores]
    found = [
        cell for judge in first.judges() for cell in _shared(judge, sides[0], sides[1], cells[0])
    ]  # in the order of the judges, then of the cells
    if not found:
        targets = [", ".join(dict.fromkeys(str(cell["target"]) for cell in each.values())) for each in cells]
        raise InputError(
            f"{str(first.path)!r} and {str(second.path)!r} have no judged cell in common, so there is nothing to compare; their "
            f"targets are {targets[0]} and {targets[1]}"
        )
    judges = set(first.judges()).intersection(second.judges())
    described = [_described(store, judges) for store in stores]
    # Runs of earlier versions do not say what stands beside the weights; that is no difference.
    known = set(described[0]).intersection(described[1])
    names = [name for name in dict.fromkeys((*described[0], *described[1])) if name in known or not name.startswith(_BESIDE)]
    settings = [Difference(name, *(in_words(each.get(name)) for each in described)) for name in names]
    keys = [{key for key, _ in side} for side in sides]
    return Comparison(
        tuple(found),
        _agreement(*rows),
        tuple(each for each in settings if each.first != each.second),
        len(keys[0] - keys[1]),
        len(keys[1] - keys[0]),
        {
            "study": stores[0].recall("study_facts"),
            "checkpoints": stores[0].recall("checkpoints", {}),
            "arms": stores[0].recall("arms", []),
            "directions": stores[0].directions(),
        },
    )


def _verdicts(run: Run, rows: Rows) -> dict[tuple[str, str], dict[str, bool]]:
    found: dict[tuple[str, str], dict[str, bool]] = {}
    for judge in run.judges():
        for row in rows:
            # A run at work, or one that was stopped, may hold completions without a verdict.
            if isinstance(refusal := row.get(f"{judge}_refusal"), bool):
                found.setdefault((row["key"], judge), {})[row["instruction"]] = refusal
    if not found:
        raise InputError(f"{str(run.path)!r} holds no verdicts yet; run its study, or judge what it has with demur report")
    return found


def _agreement(first: Rows, second: Rows) -> Agreement:
    tokens = {(row["key"], row["instruction"]): row["token_ids"] for row in first}
    pairs = [(tokens[place], row["token_ids"]) for row in second if (place := (row["key"], row["instruction"])) in tokens]
    whole = [one[: len(other)] == other[: len(one)] for one, other in pairs]
    return Agreement(len(pairs), sum(one[0] == other[0] for one, other in pairs), sum(whole))


def _shared(judge: str, first: Sides, second: Sides, cells: Mapping[str, Any]) -> list[SharedCell]:
    pairs = []
    for key, named in first:
        if named == judge and (key, judge) in second:
            one, other = shared(first[key, judge], second[key, judge])
            if one:
                pairs.append((cells[key], sum(one) / len(one), sum(other) / len(other), mcnemar(one, other)))
    adjusted = holm([paired.p_value for *_, paired in pairs])
    return [SharedCell(facts, judge, a, b, paired, p) for (facts, a, b, paired), p in zip(pairs, adjusted, strict=True)]


def _described(store: Store, judges: Collection[str]) -> dict[str, Any]:
    """Everything that decides about a run's results, by name: the study's settings first."""
    study = with_defaults(Study, store.recall("study_facts"))
    # In float32 a row's tokens do not depend on its batch; in lower precision, and in 8 bits, they may.
    exact = study["dtype"] == "float32" and not any(each.get("quantise") for each in store.recall("study_facts")["checkpoints"].values())
    same = tuple(key for key in _SAME_RESULT if exact or key != "batch_tokens")
    found = _flat({key: value for key, value in study.items() if key not in same}, "")
    for name, facts in store.recall("checkpoints", {}).items():
        found[f"weights of {name}"] = facts["fingerprint"]
        found |= {f"{_BESIDE}{what} of {name}": facts[key] for key, what in _SAID_BESIDE.items() if key in facts}
    for arm in store.recall("arms", []):
        found[f"prompt text of {arm['checkpoint']}/{arm['prompt']}"] = arm["template"]
        found[f"token read in {arm['checkpoint']}/{arm['prompt']}"] = arm["token_read"]
    for label, facts in store.recall("instructions", {}).items():
        found |= {f"{label} test instructions": facts["sha256"], f"{label} training instructions": facts["train_sha256"]}
    found |= _machines(store.recall("sessions", []))
    found |= {f"version of {name}": version for name, version in store.recall("versions", {}).items()}
    rules = store.recall("judge_versions", {})
    found |= {f"rules of judge {name}": version for name, version in rules.items() if name in judges}
    return found


def _machines(sessions: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Where a run was made, session by session: sums are rounded differently elsewhere, and a tie may then fall otherwise."""
    if not sessions:
        return {}
    kinds = [each["environment"] for each in sessions]
    return {
        "device": ", ".join(dict.fromkeys(str(each["device"]) for each in sessions)),
        "machine": ", ".join(dict.fromkeys(f"{kind['machine']} {kind['system']}, {kind['cores']} cores" for kind in kinds)),
    }


def _flat(value: Any, key: str) -> dict[str, Any]:
    """Nested tables and lists of tables as one table with dotted keys, as `--set` writes them."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    flat: dict[str, Any] = {}
    for part, inner in items:
        name = f"{key}.{part}" if key else str(part)
        nested = isinstance(inner, Mapping) or (isinstance(inner, list) and any(isinstance(each, Mapping) for each in inner))
        flat |= _flat(inner, name) if nested else {name: inner}
    return flat
