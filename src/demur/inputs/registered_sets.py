"""The instruction sets that need no file from the user: shipped with demur, or fetched from where they were published.

Each function here makes one set. The rows of a published set come from the folder that `DEMUR_DATA` names, or from the hub. Their
hash is compared with that of the published version, so that the splits are the published ones in both cases.
"""

import json
import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from demur.core.errors import InputError
from demur.inputs.arditi_draws import DRAWS, arditi_sample
from demur.inputs.hub.hub_rows import hub_rows
from demur.inputs.instruction_columns import column_texts
from demur.inputs.instruction_files import read_rows
from demur.inputs.instructions import SPLITS, InstructionSet, digest, split_80_20

MATCHED = frozenset({("contrast-harmful", "contrast-harmless")})
"""Pairs of sets in which the instructions at the same position of a split are twins."""


def contrast_harmful() -> InstructionSet:
    """Harmful instructions of the contrast set that ships with demur."""
    return _contrast("harmful")


def contrast_harmless() -> InstructionSet:
    """Harmless instructions of the contrast set, each matched to a harmful one in form and length."""
    return _contrast("harmless")


def contrast_lookalike() -> InstructionSet:
    """Harmless instructions of the contrast set that look harmful ("kill a process")."""
    return _contrast("lookalike")


def advbench() -> InstructionSet:
    """AdvBench (Zou et al. 2023), divided as "Base LLMs refuse too" divides it."""
    return _published("advbench", _ADVBENCH)


def jailbreakbench() -> InstructionSet:
    """JailbreakBench's harmful behaviours (Chao et al. 2024), all of them for test."""
    return _published("jailbreakbench", _JAILBREAKBENCH)


def alpaca() -> InstructionSet:
    """Alpaca's instructions without an input (Taori et al. 2023), divided as "Base LLMs refuse too" divides them."""
    return _published("alpaca", _ALPACA)


def arditi_harmful() -> InstructionSet:
    """The harmful instructions that Arditi et al. 2024 draw from the lists they published."""
    return _arditi("arditi-harmful", {"train": "harmful_train", "validation": "harmful_val"})


def arditi_harmless() -> InstructionSet:
    """The harmless instructions that Arditi et al. 2024 draw from the lists they published."""
    return _arditi("arditi-harmless", {"train": "harmless_train", "validation": "harmless_val", "test": "harmless_test"})


@dataclass(frozen=True)
class _Published:
    """Where a published set is found.

    `file` and `column` are its file in `DEMUR_DATA`; `dataset`, `configuration`, `part` and `hub_column` its place on the hub;
    `digest` is the hash of its rows; `all_test` says that it has no training part.
    """

    file: str
    column: str
    dataset: str
    configuration: str | None
    part: str
    hub_column: str
    digest: str
    all_test: bool = False


_ADVBENCH = _Published("advbench.csv", "goal", "walledai/AdvBench", None, "train", "prompt", "f035131936bb56f4")
_JAILBREAKBENCH = _Published(
    "jailbreakbench.csv",
    "Goal",
    "JailbreakBench/JBB-Behaviors",
    "behaviors",
    "harmful",
    "Goal",
    "f8cc489d29258926",
    all_test=True,
)
_ALPACA = _Published("alpaca_no_input.jsonl", "instruction", "tatsu-lab/alpaca", None, "train", "instruction", "ebd569feca4e40f6")


def _contrast(label: str) -> InstructionSet:
    lines = files("demur.data").joinpath("contrast.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["label"] == label]
    by_split = {split: tuple(row["instruction"] for row in rows if row["split"] == split) for split in SPLITS}
    found = {str(split): texts for split, texts in by_split.items() if texts}
    topics = {row["instruction"]: row["category"] for row in rows}
    return InstructionSet(f"contrast-{label}", found, "shipped with demur", topics=topics)


def _published(name: str, entry: _Published) -> InstructionSet:
    folder = os.environ.get("DEMUR_DATA")
    path = None if folder is None else Path(folder) / entry.file
    if path is not None and path.is_file():
        texts, source = column_texts(read_rows(path), entry.column, str(path)), entry.file
    else:
        # Both places give the same rows, because their hash is compared below.
        texts, source = _from_hub(name, entry, folder), entry.dataset
    if digest(texts) != entry.digest:
        raise InputError(
            f"the {len(texts)} rows of {name!r} from {source!r} have the hash {digest(texts)}, not {entry.digest}: it is another "
            "version, so its splits would not be the published ones; load it as a file instead"
        )
    by_split = {"test": tuple(texts)} if entry.all_test else split_80_20(texts)
    return InstructionSet(name, by_split, source)


def _from_hub(name: str, entry: _Published, folder: str | None) -> list[str]:
    way_out = f"set DEMUR_DATA to a folder that holds {entry.file}"
    if folder is not None:
        way_out = f"DEMUR_DATA is {folder!r}, which holds no {entry.file!r}; put it there"
    way_out = f"{way_out}, or name a file of instructions instead"
    rows = hub_rows(entry.dataset, entry.configuration, entry.part, what=f"instruction set {name!r}", way_out=way_out)
    return column_texts([row for row in rows if not row.get("input")], entry.hub_column, entry.dataset)


def _arditi(name: str, lists_of: dict[str, str]) -> InstructionSet:
    folder = os.environ.get("DEMUR_DATA")
    if folder is None:
        raise InputError(
            f"instruction set {name!r} is drawn from the files in dataset/splits of andyrdt/refusal_direction; set "
            "DEMUR_DATA to a folder with these files in its subfolder splits"
        )
    lists = {}
    for stem in DRAWS:
        paths = [Path(folder) / "splits" / f"{stem}{suffix}" for suffix in (".json", ".jsonl")]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            raise InputError(
                f"DEMUR_DATA is {folder!r}, which holds no splits/{stem}.json or .jsonl, so {name!r} cannot be drawn"
            )
        lists[stem] = column_texts(read_rows(path), "instruction", str(path))
    drawn = arditi_sample(lists)
    for stem in lists_of.values():
        if digest(drawn[stem]) != DRAWS[stem].digest:
            raise InputError(
                f"the draw from splits/{stem} in {folder!r} has the hash {digest(drawn[stem])}, not {DRAWS[stem].digest}: "
                "the file is not the published version; load it as a file instead"
            )
    return InstructionSet(name, {split: drawn[stem] for split, stem in lists_of.items()}, "splits")
