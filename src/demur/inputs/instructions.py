"""Instruction sets: where they come from, their splits, their hashes.

A set holds requests only. Its splits are fixed: written in the file, or drawn as "Base LLMs refuse too" draws them (80/20,
seed 42); what is asked for beyond what is there is refused, never filled up. White space around an instruction is removed.
"""

import csv
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from math import ceil
from pathlib import Path
from typing import Any, Literal, get_args

from demur.core import network as hub
from demur.core.atomic_files import is_file
from demur.core.errors import InputError, nearest
from demur.inputs.arditi_draws import DRAWS, arditi_sample

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
SUFFIXES = (".csv", ".json", ".jsonl", ".parquet", ".txt")


@dataclass(frozen=True)
class InstructionSet:
    """Instructions by split, in a fixed order. `source` says where they were read."""

    name: str
    splits: Mapping[str, tuple[str, ...]]
    source: str

    def take(self, split: Split | str, n: int | None = None) -> tuple[str, ...]:
        """The first `n` instructions of a split, or all. Raises `InputError` where there are fewer, or none."""
        if split not in SPLITS:
            raise InputError(f"{split!r} is not a split; {nearest(split, SPLITS)}")
        rows = self.splits.get(split, ())
        if not rows:
            there = ", ".join(f"{name} ({len(found)})" for name, found in self.splits.items() if found)
            raise InputError(f"instruction set {self.name!r} has no {split} split; it has {there}")
        if n is not None and n > len(rows):
            raise InputError(f"{n} {split} instructions of {self.name!r} were asked for, but it has {len(rows)}")
        return rows[:n]

    def all(self) -> tuple[str, ...]:
        """Every instruction: in file order where the file has no splits of its own."""
        return tuple(row for rows in self.splits.values() for row in rows)


def digest(instructions: Sequence[str]) -> str:
    """16 hex digits over the instructions in order: the first of sha256 over the lines, as in the reference splits."""
    return hashlib.sha256("\n".join(instructions).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class _Registered:
    file: str
    column: str
    hub: tuple[str, str | None, str, str]  # data set, configuration, split, column
    digest: str
    all_test: bool = False


_REGISTERED = {
    "advbench": _Registered("advbench.csv", "goal", ("walledai/AdvBench", None, "train", "prompt"), "f035131936bb56f4"),
    "jailbreakbench": _Registered(
        "jailbreakbench.csv",
        "Goal",
        ("JailbreakBench/JBB-Behaviors", "behaviors", "harmful", "Goal"),
        "f8cc489d29258926",
        all_test=True,
    ),
    "alpaca": _Registered(
        "alpaca_no_input.jsonl", "instruction", ("tatsu-lab/alpaca", None, "train", "instruction"), "ebd569feca4e40f6"
    ),
}
_SHIPPED = ("contrast-harmful", "contrast-harmless", "contrast-lookalike")
_ARDITI = {
    "arditi-harmful": {"train": "harmful_train", "validation": "harmful_val"},
    "arditi-harmless": {"train": "harmless_train", "validation": "harmless_val", "test": "harmless_test"},
}


def registered() -> tuple[str, ...]:
    """Names of the sets that need no file from the user."""
    return (*_SHIPPED, *_REGISTERED, *_ARDITI)


def load_instructions(spec: str, *, split: bool = True) -> InstructionSet:
    """The set a name, a file or `file:column` stands for.

    A file without a `split` column is divided 80/20 by seed 42 where `split` is true, else all its rows are one `test` split in
    file order. Raises `InputError` for a missing file or column, an empty instruction, an unknown name.
    """
    if spec in _SHIPPED:
        return _shipped(spec)
    if spec in _REGISTERED:
        return _registered(spec, _REGISTERED[spec])
    if spec in _ARDITI:
        return _arditi(spec)
    path, column = _path_and_column(spec)
    rows = read_rows(path)
    column = column or _only_column(rows, path)
    texts = _column(rows, column, str(path))
    if all("split" in row for row in rows):
        named = [str(row["split"]) for row in rows]
        wrong = sorted(set(named) - set(SPLITS))
        if wrong:
            raise InputError(f"{str(path)!r} names the split {wrong[0]!r}; expected {', '.join(SPLITS)}")
        by_split: dict[str, tuple[str, ...]] = {
            name: tuple(t for t, s in zip(texts, named, strict=True) if s == name) for name in SPLITS
        }
    else:
        by_split = split_80_20(texts) if split else {"test": tuple(texts)}
    return InstructionSet(path.stem, by_split, f"{path.name}:{column}")


def split_80_20(instructions: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """A fifth for test, the rest for training and validation, drawn as scikit-learn's `train_test_split(seed 42)` draws.

    The split of "Base LLMs refuse too". Validation instructions, of which the post has none, are the last fifth of the training
    part, so that the first training rows stay the published ones.
    """
    import numpy as np

    order = np.random.RandomState(42).permutation(len(instructions))
    cut = ceil(0.2 * len(instructions))
    test, rest = ([instructions[i] for i in part] for part in (order[:cut], order[cut:]))
    held_out = ceil(0.2 * len(rest))
    return {
        "train": tuple(rest[: len(rest) - held_out]),
        "validation": tuple(rest[len(rest) - held_out :]),
        "test": tuple(test),
    }


def _shipped(name: str) -> InstructionSet:
    label = name.removeprefix("contrast-")
    lines = files("demur.data").joinpath("contrast.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["label"] == label]
    by_split = {split: tuple(row["instruction"] for row in rows if row["split"] == split) for split in SPLITS}
    return InstructionSet(name, {split: found for split, found in by_split.items() if found}, "shipped with demur")


def _registered(name: str, entry: _Registered) -> InstructionSet:
    folder = os.environ.get("DEMUR_DATA")
    path = None if folder is None else Path(folder) / entry.file
    if path is not None and path.is_file():
        texts, source = _column(read_rows(path), entry.column, str(path)), entry.file
    else:
        # The same rows wherever they come from: their hash is asked for below.
        texts, source = _from_hub(name, entry, folder), entry.hub[0]
    if digest(texts) != entry.digest:
        raise InputError(
            f"the {len(texts)} rows of {name!r} from {source!r} have the hash {digest(texts)}, not {entry.digest}: it is another "
            "version, so its splits would not be the published ones; load it as a file instead"
        )
    by_split = {"test": tuple(texts)} if entry.all_test else split_80_20(texts)
    return InstructionSet(name, by_split, source)


def _arditi(name: str) -> InstructionSet:
    folder = os.environ.get("DEMUR_DATA")
    if folder is None:
        raise InputError(
            f"instruction set {name!r} is drawn from the files in dataset/splits of andyrdt/refusal_direction; set "
            "DEMUR_DATA to a folder that holds them as splits"
        )
    lists = {}
    for stem in DRAWS:
        paths = [Path(folder) / "splits" / f"{stem}{suffix}" for suffix in (".json", ".jsonl")]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            raise InputError(
                f"DEMUR_DATA is {folder!r}, which holds no splits/{stem}.json or .jsonl, so {name!r} cannot be drawn"
            )
        lists[stem] = _column(read_rows(path), "instruction", str(path))
    drawn = arditi_sample(lists)
    for stem in _ARDITI[name].values():
        if digest(drawn[stem]) != DRAWS[stem].digest:
            raise InputError(
                f"what is drawn from splits/{stem} in {folder!r} has the hash {digest(drawn[stem])}, not {DRAWS[stem].digest}: "
                "it is another version than the published one; load it as a file instead"
            )
    return InstructionSet(name, {split: drawn[stem] for split, stem in _ARDITI[name].items()}, "splits")


def _from_hub(name: str, entry: _Registered, folder: str | None) -> list[str]:
    dataset, configuration, split, column = entry.hub
    way_out = f"set DEMUR_DATA to a folder that holds {entry.file}"
    if folder is not None:
        way_out = f"DEMUR_DATA is {folder!r}, which holds no {entry.file!r}; put it there"
    hub.require(f"instruction set {name!r}", f"{way_out}, or name a file of instructions instead")
    try:
        from datasets import load_dataset  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError as error:
        raise InputError(f"instruction set {name!r} comes from the hub through datasets; pip install 'demur[hub]'") from error
    rows = load_dataset(dataset, configuration, split=split)
    return _column([row for row in rows if not row.get("input")], column, dataset)


def _path_and_column(spec: str) -> tuple[Path, str | None]:
    path, column = Path(spec), None
    if not is_file(path) and ":" in spec:
        head, _, tail = spec.rpartition(":")
        path, column = Path(head), tail
    if not is_file(path):
        looks_like_file = path.suffix in SUFFIXES or os.sep in str(path)
        hint = f"there is no file {str(path)!r}" if looks_like_file else nearest(spec, registered())
        raise InputError(f"{spec!r} is neither an instruction file nor a registered set; {hint}")
    return path, column


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of an instruction or completion file as objects. Raises `InputError` where it is missing or cannot be read."""
    if not path.is_file():
        raise InputError(f"there is no file {str(path)!r}")
    if path.suffix not in SUFFIXES:
        raise InputError(f"{str(path)!r} ends with {path.suffix!r}; rows are read from {', '.join(SUFFIXES)}")
    try:
        rows = _rows(path)
    except (UnicodeDecodeError, json.JSONDecodeError, csv.Error, RecursionError, OSError) as error:
        raise InputError(f"{str(path)!r} cannot be read as UTF-8 {path.suffix[1:]}: {error}") from error
    if not rows:
        raise InputError(f"{str(path)!r} holds no instructions and no other rows")
    if any(not isinstance(row, dict) for row in rows):
        raise InputError(f"{str(path)!r} must hold objects or strings, one an instruction")
    return rows


def _rows(path: Path) -> list[Any]:
    if path.suffix == ".parquet":
        try:
            import pandas

            return list(pandas.read_parquet(path).to_dict("records"))  # type: ignore[arg-type, unused-ignore]
        except ImportError as error:
            raise InputError(f"reading {str(path)!r} needs pyarrow; pip install 'demur[parquet]'") from error
        except (ValueError, OSError) as error:  # pyarrow's own errors are these
            raise InputError(f"{str(path)!r} cannot be read as parquet: {error}") from error
    with path.open(encoding="utf-8-sig", newline="") as file:
        if path.suffix == ".csv":
            return _csv_rows(file, path)
        if path.suffix == ".txt":
            # Not at the other characters that `splitlines` takes for an end of a line: text from the web holds them.
            return [{"instruction": line} for line in re.split(r"\r\n|\n|\r", file.read()) if line.strip()]
        if path.suffix == ".jsonl":
            loaded: Any = [json.loads(line) for line in file if line.strip()]
        else:
            loaded = json.load(file)
            if not isinstance(loaded, list):
                raise InputError(f"{str(path)!r} must hold a list of instructions, not a {type(loaded).__name__}")
    return [{"instruction": row} if isinstance(row, str) else row for row in loaded]


def _csv_rows(file: Iterable[str], path: Path) -> list[Any]:
    reader = csv.DictReader(file, strict=True)
    names = list(reader.fieldnames or ())
    if len(set(names)) < len(names):
        raise InputError(f"{str(path)!r} has two columns of one name in {', '.join(map(repr, names))}; give each its own")
    rows = []
    for number, row in enumerate(reader, start=1):
        if None in row:
            raise InputError(f"row {number} of {str(path)!r} has more columns than the header; quote texts that hold commas")
        rows.append(row)
    return rows


def _only_column(rows: Sequence[Mapping[str, Any]], path: Path) -> str:
    columns = [key for key in rows[0] if key and key != "split"]
    if not columns:
        raise InputError(f"row 1 of {str(path)!r} has no column with a name; expected one called 'instruction'")
    if "instruction" in columns:
        return "instruction"
    if len(columns) == 1:
        return columns[0]
    raise InputError(
        f"{str(path)!r} has the columns {', '.join(columns)}; say which holds the instructions: {path.name}:{columns[0]}"
    )


def _column(rows: Sequence[Mapping[str, Any]], column: str, where: str) -> list[str]:
    texts = []
    for number, row in enumerate(rows, start=1):
        if column not in row:
            raise InputError(f"{where!r} has no column {column!r} in row {number}; {nearest(column, map(str, row))}")
        text = row[column]
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"row {number} of {where!r} has no text in column {column!r}")
        if "\x00" in text:
            raise InputError(
                f"row {number} of {where!r} holds a NUL byte in column {column!r}; a file in UTF-16 must become UTF-8"
            )
        if any("\ud800" <= mark <= "\udfff" for mark in text):
            raise InputError(
                f"row {number} of {where!r} holds half of a surrogate pair in column {column!r}, which is no character"
            )
        texts.append(text.strip())
    return texts
