"""`prompts.sensitivity = true`: small edits of every prompt format become arms of their own.

They are written out as further formats of each checkpoint, such as `chatml~newline`. A study may also name them itself.
"""

from collections.abc import Mapping
from typing import Any

from demur.core.errors import InputError
from demur.inputs.prompt_edits import EDITS, MARK, FormatSpec, edited, is_edited, missing_edits, split_edit
from demur.inputs.prompt_formats import needs_tokenizer
from demur.study.spec_fields import listed, one_text

KEY = "sensitivity"


def format_of(name: str, prompts: Mapping[str, object]) -> FormatSpec:
    """The format of a checkpoint's prompt, as `find_system_format` takes it.

    Args:
        name: the prompt as the checkpoint names it, with or without a small edit.
        prompts: the study's own formats: texts, or tables with `format` and `system`.

    Returns:
        The format.

    Raises:
        InputError: for an unknown edit, and for one that cannot be made in this format.
    """
    base, edit = split_edit(name)
    entry = prompts.get(base, base)
    table = entry if isinstance(entry, dict) else {"format": entry} if isinstance(entry, str) else vars(entry)
    plain = FormatSpec(str(one_text(table["format"])), table.get("system"))
    if not edit:
        return plain
    found = edited(plain, edit)
    if found is None:
        possible = ", ".join(f"{base}{MARK}{known}" for known in EDITS if known not in missing_edits(plain))
        raise InputError(f"the prompt format {base!r} cannot have the small edit {edit!r}; use one of {possible}")
    return found


def with_spelling_arms(data: Any) -> Any:
    """A study's plain data without `sensitivity` in `prompts`.

    Args:
        data: the study as plain data, in which all formats have names and no checkpoint has a system sentence.

    Returns:
        The same data. With `sensitivity = true`, the formats of each checkpoint are followed by their small edits, without those
        that would change nothing or cannot be made. Data without this key are returned as they are.
    """
    prompts = data.get("prompts") if isinstance(data, dict) else None
    if not isinstance(prompts, dict) or not isinstance(prompts.get(KEY), bool):
        return data
    kept = {name: entry for name, entry in prompts.items() if name != KEY}
    found = {**data, "prompts": kept}
    if prompts[KEY] and isinstance(data.get("checkpoints"), dict):
        found["checkpoints"] = {name: _with_edits(spec, kept) for name, spec in data["checkpoints"].items()}
    return found


def _with_edits(spec: object, prompts: Mapping[str, object]) -> object:
    if not isinstance(spec, dict):
        return spec
    formats = listed(spec.get("prompts", ["native"]))
    if not isinstance(formats, list) or not all(isinstance(one, str) for one in formats):
        return spec
    more = [f"{one}{MARK}{edit}" for one in formats if not is_edited(one) for edit in _possible(one, prompts)]
    return {**spec, "prompts": list(dict.fromkeys((*formats, *more)))}


def _possible(name: str, prompts: Mapping[str, object]) -> list[str]:
    try:
        missing = missing_edits(format_of(name, prompts))
    except InputError:
        return []  # the format does not exist, which is refused later with the nearest name
    return [edit for edit in EDITS if edit not in missing]


def left_out(formats: Mapping[str, list[str]], prompts: Mapping[str, object]) -> list[str]:
    """What a reader should know of small edits that cannot be made, one sentence for each format that has others.

    Args:
        formats: the formats of each checkpoint of the study.
        prompts: the study's own formats.
    """
    found: dict[str, str] = {}
    for names in formats.values():
        for base in dict.fromkeys(split_edit(name)[0] for name in names if is_edited(name)):
            form = format_of(base, prompts)
            missing, why = missing_edits(form), _TEMPLATE if needs_tokenizer(form.spec) else _TEXT
            if missing:
                found[base] = f"The prompt format {base} has no arm with the small edit {' or '.join(missing)}: {why}."
    return list(found.values())


_TEXT = "its text has no role words, or no system turn that could change"
_TEMPLATE = "in a tokenizer's own chat template, only the text next to the instruction can be edited"
