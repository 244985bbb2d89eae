"""What an adapter's `adapter_config.json` says, read before any weights. What demur cannot merge is refused here, by name.

Names of kinds and settings are those of peft 0.21 (`peft/utils/peft_types.py`, `peft/tuners/*/config.py`).
"""

import json
from collections.abc import Mapping
from pathlib import Path

from demur.core.errors import InputError
from demur.models.sources import Source

ADAPTER_SETTINGS = "adapter_config.json"

_PROMPTS = "adds vectors to the prompt or to attention, and changes no weights"
_CHOOSES = "decides for each input how much it acts"
_NOT_WEIGHTS = {
    "PROMPT_TUNING": _PROMPTS, "MULTITASK_PROMPT_TUNING": _PROMPTS, "P_TUNING": _PROMPTS, "PREFIX_TUNING": _PROMPTS,
    "CPT": _PROMPTS, "CARTRIDGE": _PROMPTS, "ADAPTION_PROMPT": _PROMPTS, "XLORA": _CHOOSES, "POLY": _CHOOSES, "SHADOW": _CHOOSES,
}  # fmt: skip
_REFUSED = {
    "layer_replication": "it repeats blocks that share weights, so what is merged into one block would act in its copies too",
    "alora_invocation_tokens": "it acts only after certain tokens, and merged weights act on every token",
    "megatron_config": "it was made for the layers of Megatron, which transformers does not have",
}


def read_settings(adapter: str, folder: Path) -> Mapping[str, object]:
    """The content of an adapter's `adapter_config.json`.

    Raises:
        InputError: if it cannot be read.
    """
    try:
        found = json.loads((folder / ADAPTER_SETTINGS).read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise InputError(f"the {ADAPTER_SETTINGS} of adapter {adapter!r} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"the {ADAPTER_SETTINGS} of adapter {adapter!r} holds a {type(found).__name__}, not an object")
    return found


def check_settings(adapter: str, folder: Path) -> None:
    """Refuse an adapter that cannot be merged into weights, by its settings alone.

    Args:
        adapter: its name in error messages.
        folder: its folder.

    Raises:
        InputError: for an adapter that changes no weights, and for settings under which merged weights would give other results.
    """
    refuse_settings(adapter, read_settings(adapter, folder))


def refuse_settings(adapter: str, settings: Mapping[str, object], *, merged: bool = True) -> None:
    """Refuse an adapter by its settings.

    Args:
        adapter: its name in error messages.
        settings: its settings.
        merged: whether it is to be merged into the weights. Beside the weights, some more settings work.

    Raises:
        InputError: as `check_settings` does.
    """
    kind = str(getattr(settings.get("peft_type"), "value", settings.get("peft_type")))
    does_not_fit = f"adapter {adapter!r} does not fit"
    if kind in _NOT_WEIGHTS:
        raise InputError(
            f"{does_not_fit}: it is of the kind {kind}, which {_NOT_WEIGHTS[kind]}, so it cannot be merged; demur takes adapters "
            "that change weights, such as LoRA"
        )
    for name, reason in _REFUSED.items():
        if settings.get(name) and (merged or name == "alora_invocation_tokens"):
            raise InputError(
                f"{does_not_fit}: its setting {name} cannot be merged, because {reason}; use an adapter without this setting, or "
                "a model into which it was merged"
            )
    start = str(settings.get("init_lora_weights"))
    # Both change the weights below the adapter when training begins, and what they change is not in the adapter's files.
    if merged and (start.startswith("pissa_niter") or start == "lora_ga"):
        raise InputError(
            f"{does_not_fit}: it was begun with init_lora_weights={start!r}, which changes the base weights, and its files do "
            "not say how; save it again with peft's path_initial_model_for_weight_conversion, which makes a plain LoRA adapter"
        )


def other_base(settings: Mapping[str, object], source: Source) -> str | None:
    """The base that an adapter was trained on, if its name is not that of the model that it is put on; else None.

    A folder and a hub id may be the same model, so they are compared by their last parts.

    Args:
        settings: the adapter's settings.
        source: the model that it is put on.

    Returns:
        The hub id, or the last part of a path.
    """
    named = str(settings.get("base_model_name_or_path") or "").rstrip("/")
    if not named:
        return None
    last = Path(named).name
    shown = named if _looks_like_hub_id(named) else last
    if source.path is not None and Path(named).exists():
        return None if Path(named).resolve() == source.path.resolve() else shown
    if source.hub_id is not None and _looks_like_hub_id(named):
        return None if named.casefold() == source.hub_id.casefold() else shown
    known = [Path(name).name.casefold() for name in (source.hub_id, str(source.path or ""), source.reference) if name]
    same = any(name == last.casefold() or (name.endswith(".gguf") and name.startswith(last.casefold())) for name in known)
    return None if same else shown


def _looks_like_hub_id(name: str) -> bool:
    return name.count("/") == 1 and not name.startswith((".", "/", "~"))
