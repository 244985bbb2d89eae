"""What a run writes down of itself: instructions, versions, cells, checkpoints and prompts.

A run that goes on must be the run that began: other instructions, other weights and another tokenizer are refused, and so are
checkpoints whose directions cannot be exchanged.
"""

import hashlib
import json
import os
import platform
from dataclasses import replace
from datetime import UTC, datetime

from demur.core import versions
from demur.core.errors import InputError
from demur.engine.checkpoints import Checkpoint
from demur.inputs.chat_templates import can_think, is_dated
from demur.inputs.instructions import digest
from demur.inputs.prompt_formats import NATIVE, NATIVES, NO_THINKING
from demur.inputs.prompts import Prompt, prompt_format
from demur.models.device_placement import SPREAD, find_device
from demur.models.quantisation import ROWS_MEET
from demur.runs.store import Store
from demur.study.plan import Arm, PlannedCell
from demur.study.preflight import Ready
from demur.study.spec import LABELS, Study


def describe(ready: Ready, store: Store) -> None:
    """Write down what the run is, before anything is computed."""
    study = ready.plan.study
    if store.recall("created") is None:
        store.remember("created", datetime.now(UTC).isoformat(timespec="seconds"))
    _describe_instructions(ready, store)
    store.warn(ready.warnings)
    store.remember("study_facts", study.model_dump(mode="json"))
    store.add_cells((cell.key, _cell_facts(study, cell)) for cell in ready.plan.cells)


def _describe_instructions(ready: Ready, store: Store) -> None:
    found = {
        label: {
            "source": material.source,
            "split": ready.plan.study.split,
            "n": len(material.test),
            "sha256": digest(material.test),
            "train_n": len(material.train),
            "train_sha256": digest(material.train),
        }
        for label, material in ready.material.items()
    }
    known = store.recall("instructions", found)
    for label, facts in found.items():
        if facts != known[label]:
            raise InputError(
                f"the {label} instructions of {facts['source']!r} are not those this run began with; restore them, or give "
                "another --out, or --fresh"
            )
    store.remember("instructions", found)


def describe_session(store: Store, device: str) -> None:
    """Which versions and which kind of machine take part in the work: one entry for each change."""
    found = {**versions.versions(), "python": platform.python_version()}
    environment = {"system": platform.system(), "machine": platform.machine(), "cores": os.cpu_count()}
    now = {"versions": found, "environment": environment, "device": str(find_device(device) or SPREAD)}
    sessions = store.recall("sessions", [])
    if now not in sessions:
        sessions.append(now)
        store.remember("sessions", sessions)
    store.remember("versions", found)
    store.remember("environment", environment)


def _cell_facts(study: Study, cell: PlannedCell) -> dict[str, object]:
    spec, direction = cell.intervention, cell.direction
    sites: list[str] | None = None
    if spec is not None:
        default = [str(study.direction.site)] if spec.kind == "add" else ["all"]
        sites = default if spec.sites is None else [str(site) for site in spec.sites]
    return {
        "key": cell.key,
        "target": cell.target.checkpoint,
        "prompt": cell.target.prompt,
        "instructions": cell.instructions,
        "intervention": "none" if spec is None else spec.kind,
        "direction": None if direction is None else direction.name,
        "source": None if direction is None else direction.source,
        "control": direction is not None and direction.control,
        "stands_beside": None if direction is None else direction.beside,
        "layer": None if direction is None else direction.layer,
        "sites": sites,
        "layers": None if spec is None else spec.layers,
        "coefficient": None if spec is None else spec.coefficient,
        "unit": None if spec is None or spec.kind == "ablate" else spec.unit,
        "positions": None if spec is None else spec.positions,
    }


def describe_checkpoint(ready: Ready, store: Store, checkpoint: Checkpoint, name: str) -> None:
    """Write down a loaded checkpoint and its prompts. Raises `InputError` where it cannot belong to this run."""
    known = store.recall("checkpoints", {})
    before, stop_ids, settings = known.get(name, {}), list(checkpoint.stop_ids), checkpoint.facts.get("settings")
    if before.get("fingerprint", checkpoint.fingerprint) != checkpoint.fingerprint:
        raise InputError(f"the weights of {name!r} are not those this run began with; give another --out, or --fresh")
    if before.get("stop_ids", stop_ids) != stop_ids:
        raise InputError(
            f"{name!r} ends its completions at the tokens {stop_ids}, and when this run began at {before['stop_ids']}; give "
            "another --out, or --fresh"
        )
    if before.get("settings", settings) != settings:
        raise InputError(
            f"the config.json or adapter_config.json of {name!r} is not the one this run began with, so its weights may mean "
            "something else; give another --out, or --fresh"
        )
    for other, facts in known.items():
        if (facts["d_model"], facts["n_layers"]) != (checkpoint.d_model, checkpoint.n_layers):
            raise InputError(
                f"{name!r} has {checkpoint.n_layers} layers of width {checkpoint.d_model} and {other!r} has "
                f"{facts['n_layers']} of {facts['d_model']}, so their directions cannot be exchanged"
            )
    spec = ready.plan.study.checkpoints[name]
    known[name] = {
        "model": spec.model,
        "adapter": spec.adapter,
        "role": spec.role,
        "source": checkpoint.source,
        "fingerprint": checkpoint.fingerprint,
        "d_model": checkpoint.d_model,
        "n_layers": checkpoint.n_layers,
        "stop_ids": stop_ids,
        **checkpoint.facts,
    }
    store.remember("checkpoints", known)
    if ROWS_MEET in (checkpoint.quantised or ""):
        store.warn([f"{name} has {ROWS_MEET}, so a completion of it may differ with the rows beside it."])
    _describe_arms(ready, store, checkpoint, name)


def _describe_arms(ready: Ready, store: Store, checkpoint: Checkpoint, name: str) -> None:
    arms = {(entry["checkpoint"], entry["prompt"]): entry for entry in store.recall("arms", [])}
    texts = [text for label in LABELS for text in (*ready.material[label].train, *ready.material[label].test)]
    for arm in ready.plan.arms_of(name):
        prompt = prompt_of(checkpoint, arm, store)
        entry = {
            "checkpoint": arm.checkpoint,
            "prompt": arm.prompt,
            "template": prompt.template,
            "token_read": prompt.token_read(ready.plan.study.direction.position),
            "token_ids_sha256": hashlib.sha256(json.dumps(prompt.encode(texts)).encode()).hexdigest()[:16],
        }
        known = arms.get((arm.checkpoint, arm.prompt), entry)
        if any(known.get(key, value) != value for key, value in entry.items()):
            raise InputError(
                f"the tokenizer of {name!r} makes other prompts under {arm.prompt!r} than this run began with; give another "
                "--out, or --fresh"
            )
        arms[arm.checkpoint, arm.prompt] = entry
        store.warn(_of_template(checkpoint, arm))
    store.remember("arms", list(arms.values()))


def _of_template(checkpoint: Checkpoint, arm: Arm) -> list[str]:
    """What a reader should know of a chat template."""
    found = []
    if arm.spec == NATIVE and can_think(checkpoint.tokenizer):
        found.append(
            f"The chat template of {arm.checkpoint} lets the model think before it answers, so first tokens are thoughts and "
            f"refusals hard to see; the prompt format {NO_THINKING} switches that off."
        )
    if arm.spec in NATIVES and is_dated(checkpoint.tokenizer):
        found.append(
            f"The chat template of {arm.checkpoint} writes the date; its prompts hold that of the day on which this run first "
            "loaded it."
        )
    return found


def prompt_of(checkpoint: Checkpoint, arm: Arm, store: Store) -> Prompt:
    """The prompt format of an arm, with its checkpoint's tokenizer; a date in a template stays as the run first had it."""
    prompt = prompt_format(arm.spec, checkpoint, name=arm.prompt)
    if arm.spec not in NATIVES or not is_dated(checkpoint.tokenizer):
        return prompt
    known = (each for each in store.recall("arms", []) if (each["checkpoint"], each["prompt"]) == (arm.checkpoint, arm.prompt))
    return replace(prompt, template=next((each["template"] for each in known), prompt.template))
