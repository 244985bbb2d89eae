"""A study of two checkpoints in one call: the prompt formats are chosen here, and layer and dose by the run itself."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from demur.core.atomic_files import is_file, is_folder
from demur.core.errors import InputError
from demur.core.progress import Phases, no_phases
from demur.inputs.instructions import read_instructions
from demur.models.compatibility import compare, refuse_foreign_tokens
from demur.models.sources import find_adapter, find_model
from demur.runs.run import Run
from demur.runs.runner import run
from demur.runs.selecting.pair_formats import PairFormats, pair_formats
from demur.study.spec import LABELS, Study, make_study
from demur.study.tables.control_tables import default_controls

SETS = ("contrast-harmful", "contrast-harmless")
"""The instruction sets that are used unless others are given."""

PAIRS, TEST, SELECTION = 128, 100, 24
"""At most so many training pairs, test instructions and validation instructions of each kind."""

QUICK = (32, 24, 12)
"""The same numbers for a quick look."""

INTERVENTIONS: list[JsonValue] = [
    {"kind": "affine", "on": ["harmful"]},
    {"kind": "ablate", "on": ["harmful"]},
    {"kind": "add", "on": ["harmless"], "coefficient": "select", "unit": "raw"},
]
"""The affine edit removes a direction with less damage than ablation to zero, which is the edit of the original experiment."""

PROBABILITIES: dict[str, JsonValue] = {"name": "refusal-probability", "instructions": 16, "min_mass": 0.01}
"""Likely beginnings are enough to compare an edit with null directions. With half as many instructions, no p value against them
can be below 1/256, which times the number of claims is hardly significant."""


@dataclass(frozen=True)
class PairStudy:
    """The study of a pair, and what a reader should know of how it was made.

    Attributes:
        study: the study.
        notes: sentences.
    """

    study: Study
    notes: tuple[str, ...] = ()


def pair(
    base: str,
    chat: str,
    *,
    out: str | Path | None = None,
    prompts: Sequence[str] = (),
    instructions: tuple[str, str] = SETS,
    quick: bool = False,
    system: str | None = None,
    dtype: str = "float32",
    device: str = "auto",
    fresh: bool = False,
    phases: Phases = no_phases,
) -> Run:
    """Compare a base checkpoint with its chat checkpoint: refusals, directions, and what moving the directions does.

    Prompt formats, layer and dose are chosen; `demur.load_study` of the folder's `study.toml` shows how. The same call resumes a
    run that was interrupted.

    Args:
        base: a hub id, a folder or a `.gguf` file; `MODEL+ADAPTER` for one with an adapter.
        chat: the other checkpoint.
        out: the run folder; `runs/NAME` unless given.
        prompts: prompt formats for both checkpoints; chosen from their chat templates unless given.
        instructions: the harmful and the harmless instruction set: names or files.
        quick: use fewer instructions.
        system: a system sentence for both checkpoints; the prompt formats must have a place for it.
        dtype: the precision of the weights.
        device: `auto` for the first GPU, else the CPU; or `cpu`, `cuda`, `cuda:1`, `spread`.
        fresh: start over in a folder that holds a run.
        phases: shows progress.

    Returns:
        The finished run.

    Raises:
        InputError: if the two cannot be compared, before weights are read; and for anything else that is wrong with the input.
        WorkError: if the work fails, or if no layer has an effect; what was finished by then is kept.

    Example:
        >>> import demur
        >>> found = demur.pair("Qwen/Qwen1.5-0.5B", "Qwen/Qwen1.5-0.5B-Chat", quick=True)  # doctest: +SKIP
        >>> found.cells()[["target", "direction", "rate"]]  # doctest: +SKIP

        It is skipped because it loads two checkpoints.
    """
    made = pair_study(base, chat, prompts=prompts, instructions=instructions, quick=quick, dtype=dtype, system=system)
    folder = Path(out) if out is not None else Path("runs") / made.study.name
    return run(made.study, folder, device=device, fresh=fresh, phases=phases, notes=made.notes)


def pair_study(
    base: str,
    chat: str,
    *,
    prompts: Sequence[str] = (),
    instructions: tuple[str, str] = SETS,
    quick: bool = False,
    system: str | None = None,
    dtype: str = "float32",
) -> PairStudy:
    """The study of two checkpoints, with layer and dose still to be selected. Reads configs and tokenizers, no weights.

    Args:
        base: the base checkpoint, as for `pair`.
        chat: the chat checkpoint.
        prompts: prompt formats for both; chosen from their chat templates unless given.
        instructions: the harmful and the harmless instruction set.
        quick: use fewer instructions.
        system: a system sentence for both checkpoints; the prompt formats must have a place for it.
        dtype: the precision of the weights.

    Raises:
        InputError: if the two cannot be compared.
    """
    specs = {"base": _checkpoint(base), "chat": _checkpoint(chat)}
    sources = {name: find_model(spec["model"]) for name, spec in specs.items()}
    compare(sources)
    refuse_foreign_tokens(sources)
    if specs["base"] == specs["chat"]:
        raise InputError(f"both checkpoints are {base!r}; give two different ones, such as a base model and its chat model")
    formats = PairFormats(tuple(prompts)) if prompts else _formats(specs)
    pairs, test, selection = _counts(instructions, quick)
    said = {} if system is None else {"system": system}
    checkpoints = {name: {**spec, "role": name, "prompts": list(formats.names), **said} for name, spec in specs.items()}
    data = {
        "name": _name(base, chat),
        "summary": f"{base} and {chat}",
        "judges": ["prefix", "substring", "taxonomy"],
        "measurements": ["by-layer", "direction-agreement", PROBABILITIES],
        "dtype": dtype,
        "checkpoints": checkpoints,
        "prompts": dict(formats.texts),
        "instructions": {label: {"source": source, "test": test} for label, source in zip(LABELS, instructions, strict=True)},
        "direction": {"pairs": pairs, "layers": "select"},
        "interventions": INTERVENTIONS,
        # No completions with null directions: their refusal probability is measured, which keeps the run short.
        "controls": {**default_controls(len(specs) * len(formats.names), raw=True, measured=True), "completions": 0},
        "selection": {"instructions": selection},
    }
    return PairStudy(make_study(data, "the study of the pair"), formats.notes)


def _checkpoint(reference: str) -> dict[str, str]:
    """`model`, and `adapter` if the reference is MODEL+ADAPTER. A path that holds a + is a path."""
    model, plus, adapter = reference.rpartition("+")
    if not plus or is_folder(Path(reference)) or is_file(Path(reference)):
        return {"model": reference}
    find_adapter(adapter)
    return {"model": model, "adapter": adapter}


def _formats(specs: dict[str, dict[str, str]]) -> PairFormats:
    from demur.models.load_weights import checkpoint_tokenizer  # imports torch and transformers

    found = []
    for spec in specs.values():
        adapter = spec.get("adapter")
        folder = None if adapter is None else find_adapter(adapter)
        found.append(checkpoint_tokenizer(spec["model"], find_model(spec["model"]), adapter, folder))
    return pair_formats(*found)


def _counts(instructions: tuple[str, str], quick: bool) -> tuple[int, int, int]:
    """Training pairs, test instructions and validation instructions: as many as both sets have, up to the usual numbers."""
    sets = [read_instructions(source) for source in instructions]
    wanted = QUICK if quick else (PAIRS, TEST, SELECTION)
    splits = ("train", "test", "validation")
    pairs, test, selection = (
        min(most, *(len(one.splits.get(split, ())) for one in sets)) for most, split in zip(wanted, splits, strict=True)
    )
    if min(pairs, test) < 1 or selection < 2:
        raise InputError(
            f"the instruction sets {instructions[0]!r} and {instructions[1]!r} have {pairs} training, {selection} validation and "
            f"{test} test instructions in common numbers; expected at least 1, 2 and 1 of each kind"
        )
    return pairs, test, selection


def _name(base: str, chat: str) -> str:
    """A name for the study: the last parts of both names."""
    parts = [re.sub(r"[^A-Za-z0-9.]+", "-", Path(one.replace("demo:", "")).name).strip("-.")[:40] for one in (base, chat)]
    return "-and-".join(part or "checkpoint" for part in parts)
