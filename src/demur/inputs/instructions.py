"""Instruction sets: their names and files, their splits, their hashes.

A set has only requests, no answers. Its splits are fixed: they are given in the file, or drawn as "Base LLMs refuse too" draws
them (80/20, seed 42). It is an error to ask for more instructions than a split has: a set never gives fewer or repeats some.
"""

import hashlib
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Literal, get_args

from demur.core.atomic_files import is_file
from demur.core.errors import InputError, nearest, sentence
from demur.core.registry import registry
from demur.inputs.instruction_columns import column_texts, only_column, read_column
from demur.inputs.instruction_files import Row, has_known_ending, read_row_file
from demur.inputs.lost_context import context_note, lost_context, refuse_lost_context
from demur.inputs.prompt_formats import names_module
from demur.inputs.repeated_instructions import first_of_each, repeats_note, sameness, shared_note

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

TOPIC_COLUMNS = ("topic", "category")
"""The columns of a file that state what an instruction is about."""

Splits = Mapping[str, Sequence[str]]
"""Instructions by split: what a registered set may return in place of an `InstructionSet`."""


@dataclass(frozen=True)
class InstructionSet:
    """Instructions in a fixed order.

    Attributes:
        name: the name of the set in results.
        splits: the instructions by split: `train`, `validation`, `test`. Not every set has all of them.
        source: where they were read.
        notes: what a reader of results should know of the file, in sentences without a full stop: text that is not part of the
            instructions, and instructions that were repeated.
        topics: the topic of an instruction by its text, such as `fraud`: the column `topic` or `category` of a file. Empty if the
            set states none.
    """

    name: str
    splits: Mapping[str, tuple[str, ...]]
    source: str
    notes: tuple[str, ...] = ()
    topics: Mapping[str, str] = field(default_factory=dict)

    def take(self, split: Split | str, n: int | None = None) -> tuple[str, ...]:
        """The first instructions of a split.

        Args:
            split: `train`, `validation` or `test`.
            n: how many; all if None.

        Raises:
            InputError: if the split has fewer, if `n` is negative, or if there is no such split.
        """
        if split not in SPLITS:
            raise InputError(f"{split!r} is not a split; {nearest(split, SPLITS)}")
        rows = self.splits.get(split, ())
        if not rows:
            there = ", ".join(f"{name} ({len(found)})" for name, found in self.splits.items() if found)
            raise InputError(f"instruction set {self.name!r} has no {split} split; it has {there}")
        if n is not None and n > len(rows):
            raise InputError(f"{n} {split} instructions of {self.name!r} were asked for, but it has {len(rows)}")
        if n is not None and n < 0:
            raise InputError(f"{n} instructions were asked for; expected 0 or more")
        return rows[:n]

    def topics_of(self, instructions: Sequence[str]) -> tuple[str, ...]:
        """The topic of each of these instructions; empty if the set does not state the topic of each of them."""
        known = tuple(self.topics[text] for text in instructions if text in self.topics)
        return known if len(known) == len(instructions) else ()

    def draw(self, n: int, seed: int) -> tuple[str, ...]:
        """Training instructions that are drawn at random. Sets of equal size give the same places, so matched sets stay matched.

        Args:
            n: how many.
            seed: the seed of the draw, with which the same instructions are drawn on every machine.

        Raises:
            InputError: as `take` does.
        """
        import numpy as np

        self.take("train", n)
        rows = self.splits["train"]
        return tuple(rows[place] for place in np.random.RandomState(seed).permutation(len(rows))[:n])

    def all(self) -> tuple[str, ...]:
        """All instructions, one split after the other."""
        return tuple(row for rows in self.splits.values() for row in rows)


def digest(instructions: Sequence[str]) -> str:
    """The first 16 hex digits of sha256 over the instructions, one a line, as in the reference splits."""
    return hashlib.sha256("\n".join(instructions).encode()).hexdigest()[:16]


def registered() -> tuple[str, ...]:
    """The names of the sets that need no file from the user, those that demur ships first."""
    return registry("instructions").names()


def load_instructions(spec: str, *, split: bool = True) -> InstructionSet:
    """Load an instruction set.

    Args:
        spec: the name of a registered set; a `.csv`, `.json`, `.jsonl`, `.parquet` or `.txt` file; `file:column`; or
            `module:attribute`, where the attribute is anything that can be registered as a set.
        split: whether to divide a file without a `split` column 80/20 by seed 42. If false, all its rows are one `test` split, in
            the order of the file.

    Returns:
        The set. An instruction that a file repeats is in it once. Its notes are also given as warnings.

    Raises:
        InputError: for an unknown name, with the nearest known one; for a missing file or column; for a row without a text;
            if only some rows have a split; and if no column is named and instructions have text beside them, such as `input`.

    Example:
        >>> import demur
        >>> harmful = demur.load_instructions("contrast-harmful")
        >>> {split: len(texts) for split, texts in harmful.splits.items()}
        {'train': 144, 'validation': 36, 'test': 108}
        >>> len(harmful.take("train", 32))
        32
    """
    found = read_instructions(spec, split=split)
    for note in found.notes:
        warnings.warn(sentence(note), stacklevel=2)
    return found


def read_instructions(spec: str, *, split: bool = True) -> InstructionSet:
    """The same as `load_instructions`, for callers that tell the notes of the set in their own way."""
    file = Path(spec.rpartition(":")[0])
    may_be_file = is_file(Path(spec)) or is_file(file) or has_known_ending(file)
    if spec in registry("instructions") or (not may_be_file and names_module(spec)):
        return _registered(spec)
    path, column = _path_and_column(spec)
    return _from_file(path, column, split)


def may_be_elsewhere(spec: str) -> bool:
    """Whether a source of instructions may be on another machine: a file that is not here, or a registered set to be fetched.

    Args:
        spec: the name of a registered set, a file or `file:column`.
    """
    head = Path(spec.rpartition(":")[0])
    if is_file(Path(spec)) or is_file(head):
        return False
    looks_like_file = any(has_known_ending(path) or os.sep in str(path) for path in (Path(spec), head))
    return spec in registry("instructions") or looks_like_file


def _from_file(path: Path, named: str | None, split: bool) -> InstructionSet:
    found = read_row_file(path)
    rows = found.rows
    column = named or only_column(found)
    read = read_column(rows, column, str(path))
    texts = read.texts
    lost = context_note(lost_context(rows, column, texts), read.left_out, len(rows), path.name, column)
    if named is None:
        refuse_lost_context(lost, f"{path.name}:{column}")
    if any("split" in row for row in rows):
        given = _splits_of(rows, path)
        kept = first_of_each([(part, sameness(text)) for part, text in zip(given, texts, strict=True)])
        by_split = {str(name): tuple(texts[place] for place in kept if given[place] == name) for name in SPLITS}
    else:
        kept = first_of_each(list(map(sameness, texts)))
        different = [texts[place] for place in kept]
        by_split = split_80_20(different) if split else {"test": tuple(different)}
    shared = shared_note(by_split.items(), repr(path.name), "split")
    notes = tuple(note for note in (lost, repeats_note(texts, kept, path.name), shared) if note is not None)
    return InstructionSet(path.stem, by_split, f"{path.name}:{column}", notes, _topics_of(rows, texts))


def _topics_of(rows: Sequence[Row], texts: Sequence[str]) -> dict[str, str]:
    """The topic of each text that has one, from the first of the columns in `TOPIC_COLUMNS` that the file has."""
    column = next((name for name in TOPIC_COLUMNS if any(name in row for row in rows)), None)
    stated = zip(texts, (row.get(column or "") for row in rows), strict=True)
    return {text: str(topic).strip() for text, topic in stated if topic is not None and str(topic).strip()}


def _splits_of(rows: Sequence[Row], path: Path) -> list[str]:
    """The split of each row."""
    for number, row in enumerate(rows, start=1):
        if "split" not in row:
            raise InputError(
                f"row {number} of {str(path)!r} has no split, but other rows have one; give every row a split, or none"
            )
    named = [str(row["split"]) for row in rows]
    wrong = sorted(set(named) - set(SPLITS))
    if wrong:
        raise InputError(f"{str(path)!r} names the split {wrong[0]!r}; expected {', '.join(SPLITS)}")
    return named


def _registered(name: str) -> InstructionSet:
    """A set from the registry: an `InstructionSet`, instructions by split, or a function without arguments that returns one."""
    part: InstructionSet | Splits | Callable[[], InstructionSet | Splits] = registry("instructions").get(name)
    made = part() if callable(part) else part
    if isinstance(made, InstructionSet):
        return made
    if not isinstance(made, Mapping) or not made:
        raise InputError(
            f"the instruction set {name!r} is a {type(made).__name__}; expected instructions by split, or a function that "
            "returns them"
        )
    by_split: dict[str, tuple[str, ...]] = {}
    for split, texts in made.items():
        if split not in SPLITS:
            raise InputError(f"the instruction set {name!r} has the split {split!r}; expected {', '.join(SPLITS)}")
        if isinstance(texts, str):
            raise InputError(f"the {split} split of the instruction set {name!r} is one text; expected a list of texts")
        rows = [{"instruction": text} for text in texts]
        by_split[split] = tuple(column_texts(rows, "instruction", f"{split} of {name}"))
    return InstructionSet(name, by_split, name)


def split_80_20(instructions: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Divide instructions as "Base LLMs refuse too" does, with scikit-learn's `train_test_split` and seed 42.

    Args:
        instructions: all instructions, in the order of their file.

    Returns:
        A fifth of them for test, a fifth of the others for validation, and the rest for training. The post has no validation
        split. Here it is the end of the post's training part, so that the first training instructions are the published ones.
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


def _path_and_column(spec: str) -> tuple[Path, str | None]:
    path, column = Path(spec), None
    if not is_file(path) and ":" in spec:
        head, _, tail = spec.rpartition(":")
        path, column = Path(head), tail
    if not is_file(path):
        looks_like_file = has_known_ending(path) or os.sep in str(path)
        hint = f"there is no file {str(path)!r}" if looks_like_file else nearest(spec, registered())
        raise InputError(f"{spec!r} is neither an instruction file nor a registered set; {hint}")
    return path, column
