"""Names for prompt formats that a study gives as texts, and the names that such formats have in a run folder.

A text in a checkpoint's `prompts` is written out as a format of the study with a readable name. A run that began under other
names keeps them, because its cells and directions are stored under these names.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, cast

from pydantic import JsonValue

from demur.core.registry import registry
from demur.inputs.format_names import earlier_name, format_name, is_text, readable_name, shipped_name
from demur.inputs.prompt_edits import MARK, split_edit
from demur.inputs.prompt_formats import SLOT, needs_tokenizer, template_text
from demur.study.spec_fields import Facts, listed, one_text

Naming = Callable[[str, Mapping[str, object], list[object]], str]
"""Gives a name to a text. Takes the text, the study's own formats, and all formats of the checkpoint."""


def with_named_formats(data: Any) -> Any:
    """A study's plain data with a name for every prompt format that a checkpoint gives as a text.

    Args:
        data: the study as TOML gives it.

    Returns:
        The same data, with these texts in `prompts`. A text that the study names, or that ships with demur, has that name. Data
        without such texts are returned as they are.
    """
    return _named(data, _readable) if isinstance(data, dict) else data


def with_earlier_names(stored: Facts) -> dict[str, JsonValue]:
    """A stored study with the names that formats given as texts have in its run folder, if an earlier version stored it.

    Args:
        stored: the study as plain data, as a run folder holds it.

    Returns:
        The same study. One that has no such texts is unchanged.
    """
    return cast(dict[str, JsonValue], _named(dict(stored), lambda text, _prompts, _formats: earlier_name(text)))


def named_as_in_run(study: Facts, stored: Facts) -> tuple[dict[str, JsonValue], dict[str, str]]:
    """A study with the names that its prompt formats have in a run. Formats are the same if their texts are.

    Args:
        study: the study as plain data.
        stored: the study that the run folder holds.

    Returns:
        The study as plain data, and its names that were replaced: name in the study -> name in the run. A text that has several
        names keeps them, and so does one whose name in the run is the name of another text in the study.
    """
    there = with_earlier_names(stored)
    own, others = _names_by_text(study), _names_by_text(there)
    same = {text: (next(iter(own[text])), next(iter(others[text]))) for text in own if text in others}
    pairs = {mine: its for text, (mine, its) in same.items() if mine != its and len(own[text]) == len(others[text]) == 1}
    kept = {name for names in own.values() for name in names if name not in pairs}
    pairs = {mine: its for mine, its in pairs.items() if its not in kept}
    prompts, stored_prompts = (cast(dict[str, JsonValue], facts.get("prompts") or {}) for facts in (study, there))
    texts = {its: stored_prompts[its] for its in pairs.values() if its in stored_prompts}
    found = _with_formats(dict(study), lambda _checkpoint, one: _renamed(str(one), pairs))
    found["prompts"] = {**{name: text for name, text in prompts.items() if name not in pairs}, **texts}
    return cast(dict[str, JsonValue], found), pairs


def _renamed(name: str, pairs: Mapping[str, str]) -> str:
    """The name in the run, also of a format with a small edit."""
    base, edit = split_edit(name)
    return f"{pairs.get(base, base)}{MARK if edit else ''}{edit}"


def _readable(text: str, prompts: Mapping[str, object], formats: list[object]) -> str:
    own = [name for name, known in prompts.items() if one_text(cast(JsonValue, known)) == text]
    shipped = shipped_name(text)
    known = [*own, *([] if shipped is None or shipped in prompts else [shipped])]
    fitting = next((name for name in known if name not in formats), None)
    return fitting or readable_name(text, [*prompts, *registry("prompt").names()])


def _named(data: dict[str, object], naming: Naming) -> dict[str, object]:
    """Gives a name to every text in the checkpoints' formats, and enters it in `prompts` unless it ships with demur."""
    checkpoints, prompts = data.get("checkpoints"), data.get("prompts", {})
    if not isinstance(checkpoints, dict) or not isinstance(prompts, dict):
        return data
    prompts, names = dict(prompts), dict[tuple[str, str], str]()
    for checkpoint, spec in checkpoints.items():
        formats = list(_formats(spec))
        for place, one in enumerate(formats):
            # A text with several places for the instruction is refused later, with words of its own.
            if isinstance(one, str) and one not in prompts and is_text(one) and one.count(SLOT) == 1:
                text = str(one_text(one))
                formats[place] = names[checkpoint, one] = naming(text, prompts, formats)
                if shipped_name(text) != formats[place]:
                    prompts[formats[place]] = text
    if not names:
        return data
    return {**_with_formats(data, lambda checkpoint, one: names.get((checkpoint, str(one)), one)), "prompts": prompts}


def _formats(spec: object) -> list[object]:
    """The formats of a checkpoint; none if what is written there is no list of them."""
    found = listed(spec.get("prompts")) if isinstance(spec, dict) else None
    return found if isinstance(found, list) else []


def _with_formats(data: dict[str, object], renamed: Callable[[str, object], object]) -> dict[str, object]:
    """The study with other names for formats, from checkpoint and format, wherever it names a checkpoint's format.

    These places are its checkpoints, the arms that its interventions name, and its published rates.
    """
    found = dict(data)
    found["checkpoints"] = {
        name: {**spec, "prompts": [renamed(name, one) for one in formats]} if (formats := _formats(spec)) else spec
        for name, spec in cast(dict[str, dict[str, object]], data["checkpoints"]).items()
    }
    edits, published = data.get("interventions"), data.get("published")
    if isinstance(edits, list):
        found["interventions"] = [_with_arms(edit, renamed) for edit in edits]
    if isinstance(published, list):
        found["published"] = [_published(each, renamed) for each in published]
    return found


def _with_arms(edit: object, renamed: Callable[[str, object], object]) -> object:
    """An intervention whose `sources` and `targets` name arms by the new names of their formats."""
    if not isinstance(edit, dict):
        return edit
    named = {key: edit[key] for key in ("sources", "targets") if isinstance(edit.get(key), list)}
    return {**edit, **{key: [_arm(name, renamed) for name in names] for key, names in named.items()}}


def _arm(name: object, renamed: Callable[[str, object], object]) -> object:
    checkpoint, slash, prompt = name.partition("/") if isinstance(name, str) else ("", "", "")
    return f"{checkpoint}/{renamed(checkpoint, prompt)}" if slash else name


def _published(publication: object, renamed: Callable[[str, object], object]) -> object:
    if not isinstance(publication, dict) or not isinstance(publication.get("rates"), list):
        return publication
    rates = [
        {**rate, "prompt": renamed(str(rate.get("target")), rate["prompt"])}
        if isinstance(rate, dict) and isinstance(rate.get("prompt"), str)
        else rate
        for rate in publication["rates"]
    ]
    return {**publication, "rates": rates}


def _names_by_text(study: Facts) -> dict[str, set[str]]:
    """The names that the formats of a study's checkpoints have, by text. Formats that depend on the tokenizer are left out."""
    prompts, found = cast(dict[str, JsonValue], study.get("prompts") or {}), dict[str, set[str]]()
    for spec in cast(dict[str, JsonValue], study.get("checkpoints") or {}).values():
        for one in map(str, _formats(spec)):
            if one in prompts:
                # A format with a system sentence is a table.
                known = prompts[one] if isinstance(prompts[one], str) else json.dumps(prompts[one], sort_keys=True)
                found.setdefault(str(one_text(known)), set()).add(one)
            elif one in registry("prompt") and not needs_tokenizer(one):
                found.setdefault(template_text(one), set()).add(format_name(one))
    return found
