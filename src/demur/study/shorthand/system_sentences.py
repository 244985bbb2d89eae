"""System sentences in a study: `system` of a checkpoint, and prompt formats that are tables with `format` and `system`.

The first is written out as the second. So every arm with a system sentence has a prompt format with a name that shows it.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue

from demur.core.registry import registry
from demur.inputs.format_names import format_name, system_name
from demur.study.spec_fields import listed, one_text


def with_system_formats(data: Any) -> Any:
    """A study's plain data without `system` in checkpoints.

    Args:
        data: the study as plain data, in which every text of a checkpoint's `prompts` has a name.

    Returns:
        The same data. A checkpoint with `system` has formats of its own, which are tables under `prompts`. The format in such a
        table is a text or a name that does not depend on the study. Data without system sentences are returned as they are.

    Raises:
        ValueError: if a format of a checkpoint with `system` has a system sentence already.
    """
    if not isinstance(data, dict) or not isinstance(data.get("checkpoints"), dict):
        return data
    written = data.get("prompts", {})
    if not isinstance(written, dict):
        return data
    prompts: dict[str, JsonValue] = {name: _of_its_own(entry, written) for name, entry in written.items()}
    checkpoints = {name: _spec(name, spec, prompts) for name, spec in data["checkpoints"].items()}
    if prompts == written and checkpoints == data["checkpoints"]:
        return data
    return {**data, "checkpoints": checkpoints, "prompts": prompts}


def _of_its_own(entry: JsonValue, written: Mapping[str, JsonValue]) -> JsonValue:
    """A table with the text of its format in place of the name that the study gives to this text."""
    form = entry.get("format") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(form, str):
        return entry
    text = written.get(form)
    return {**entry, "format": one_text(text if isinstance(text, str) else form)}


def _spec(checkpoint: str, spec: object, prompts: dict[str, JsonValue]) -> object:
    """A checkpoint without `system`. Its formats are entered in `prompts`."""
    if not isinstance(spec, dict) or not isinstance(spec.get("system"), str):
        return spec
    formats = listed(spec.get("prompts", ["native"]))
    if not isinstance(formats, list) or not all(isinstance(one, str) for one in formats):
        return spec
    names = []
    for one in formats:
        if not isinstance(prompts.get(one, ""), str):
            raise ValueError(
                f"checkpoints.{checkpoint}.system is set, but its format {one!r} has a system sentence already; leave one out"
            )
        entry = {"format": one_text(prompts.get(one, one)), "system": one_text(spec["system"])}
        same = next((name for name, known in prompts.items() if known == entry), None)
        short = one if one in prompts else format_name(one) if one in registry("prompt") else one
        name = same or system_name(short, spec["system"], [*prompts, *registry("prompt").names()])
        prompts[name] = entry
        names.append(name)
    return {**{key: value for key, value in spec.items() if key != "system"}, "prompts": names}
