"""Completions in files: demur's own rows, tables with columns of any name, and what other programs write.

The content shows the format: OpenAI batch outputs, samples of lm-eval, completions of HarmBench, logs of Inspect. Everything else
is a table, whose columns are called `instruction` and `completion` unless the caller names them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demur.core.errors import InputError, nearest
from demur.inputs.completions import harmbench_completions, inspect_logs, lm_eval_samples, openai_responses
from demur.inputs.completions.completion_rows import USUAL_COLUMNS, CompletionRows
from demur.inputs.instruction_files import Row, read_row_file
from demur.inputs.json_rows import json_value
from demur.inputs.repeated_instructions import sameness
from demur.inputs.text_files import read_text

FORMATS = "an OpenAI batch output, samples of lm-eval, completions of HarmBench, a log of Inspect"
SUFFIXES = (".csv", ".eval", ".json", ".jsonl", ".ndjson", ".parquet", ".tsv")
"""The endings of files of completions."""


@dataclass(frozen=True)
class CompletionFile:
    """The completions of a file.

    Attributes:
        rows: one row for each completion. `completion` is its key for the text unless the caller named another column.
        completions: the texts.
        instructions: what was asked; None where the file does not say.
        notes: how the file was read and what was left out, in sentences without a full stop.
    """

    rows: tuple[Row, ...]
    completions: tuple[str, ...]
    instructions: tuple[str | None, ...]
    notes: tuple[str, ...]


def read_completions(
    path: Path, *, instruction_column: str | None = None, completion_column: str | None = None, asks: str | None = None
) -> CompletionFile:
    """Read a file of completions.

    Args:
        path: the file.
        instruction_column: the column of the instructions in a table; if None, `instruction`.
        completion_column: the column of the completions in a table; if None, `completion`. A list of texts gives several
            completions. If either is named, the file is read as a table.
        asks: who needs every instruction, for the error; None if nobody does.

    Returns:
        The completions, at least one.

    Raises:
        InputError: for a file that is missing or damaged, for a row without a completion, and for a missing instruction that is
            needed.
    """
    named = instruction_column is not None or completion_column is not None
    foreign = None if named else _foreign(path)
    if foreign is not None:
        return _of_other_program(foreign, path, asks)
    rows = read_row_file(path).rows
    key, asked = completion_column or "completion", instruction_column or "instruction"
    rows = tuple(one for number, row in enumerate(rows, start=1) for one in _samples(row, key, number, path))
    need = asks is not None or instruction_column is not None
    for number, row in enumerate(rows, start=1):
        if need and not isinstance(row.get(asked), str):
            reader = f", which {asks} reads" if asks else ""
            raise _no_text(row, number, path, asked, f"{reader}; name the column with --instruction-column")
    asked_texts = tuple(row[asked] if isinstance(row.get(asked), str) else None for row in rows)
    return CompletionFile(rows, tuple(row[key] for row in rows), asked_texts, _several(asked_texts))


def _samples(row: Row, key: str, number: int, path: Path) -> list[Row]:
    """The row, or one for each text if the row has a list of them."""
    value = row.get(key)
    if isinstance(value, list) and value and all(isinstance(text, str) for text in value):
        return [{**row, key: text, "sample": sample} for sample, text in enumerate(value)]
    if not isinstance(value, str):
        usual = next((name for name in row if str(name).casefold() in USUAL_COLUMNS), None)
        example = f", such as --completion-column {usual}" if usual else ""
        raise _no_text(row, number, path, key, f"; name the column with --completion-column{example}, or give {FORMATS}")
    return [row]


def _no_text(row: Row, number: int, path: Path, key: str, way_out: str) -> InputError:
    has = f"it has {', '.join(map(repr, row))}" if row else "it is empty"
    # The usual names were not chosen by the user, so they are not misspelt.
    misspelt = "" if key in ("completion", "instruction") or key in row else f"; {nearest(key, map(str, row))}"
    return InputError(f"row {number} of {str(path)!r} has no text under {key!r}; {has}{misspelt}{way_out}")


def _foreign(path: Path) -> CompletionRows | None:
    """The completions in another program's format; None for a table."""
    try:
        return _parsed(path)
    except (AttributeError, TypeError, KeyError, IndexError) as error:
        # The readers expect the types that these programs write.
        raise InputError(
            f"{str(path)!r} looks like {FORMATS.replace(', a log', ' or a log')}, but parts of it are missing"
        ) from error


def _parsed(path: Path) -> CompletionRows | None:
    suffix = path.suffix.lower()
    if suffix == ".eval" and path.is_file():
        return inspect_logs.read_archive(path)
    if suffix not in (".json", ".jsonl", ".ndjson") or not path.is_file():
        return None
    try:
        found = json_value(read_text(path), path)
    except (ValueError, RecursionError, OSError):
        return None  # reading it as a table says what is wrong
    if isinstance(found, list) and len(found) == 1 and (harmbench_completions.fits(found[0]) or inspect_logs.fits(found[0])):
        found = found[0]
    if inspect_logs.fits(found):
        return inspect_logs.read(found)
    if harmbench_completions.fits(found):
        return harmbench_completions.read(found)
    rows = found if isinstance(found, list) else [found]
    if not rows:
        return None
    return next((module.read(rows) for module in (openai_responses, lm_eval_samples) if module.fits(rows)), None)


def _of_other_program(found: CompletionRows, path: Path, asks: str | None) -> CompletionFile:
    if not found.rows:
        why = f"; {found.notes[0]}" if found.notes else ""
        raise InputError(f"{str(path)!r} is {found.kind}, and it has no completions{why}")
    if asks is not None and any(row.instruction is None for row in found.rows):
        raise InputError(
            f"{str(path)!r} is {found.kind}, which does not say what was asked, and {asks} reads that; use a judge that reads "
            "only the completion, such as prefix, or write a .jsonl file with instruction and completion"
        )
    rows = tuple(_row(row.instruction, row.completion, row.facts) for row in found.rows)
    entries: list[str | None] = [
        str([value for name, value in row.facts.items() if name not in ("sample", "epoch")]) for row in found.rows
    ]
    read = f"{path.name!r} is read as {found.kind}: {len(rows)} completion{'s' if len(rows) > 1 else ''}"
    notes = (read, *found.notes, *_several(entries))
    return CompletionFile(rows, tuple(row.completion for row in found.rows), tuple(row.instruction for row in found.rows), notes)


# Any: a value of the user's file.
def _row(instruction: str | None, completion: str, facts: Mapping[str, Any]) -> Row:
    asked = {} if instruction is None else {"instruction": instruction}
    return {**asked, "completion": completion, **facts}


def _several(asked: Sequence[str | None]) -> tuple[str, ...]:
    """A note if completions share an instruction, because n then counts completions."""
    known = [sameness(text) for text in asked if text is not None]
    different = len(set(known))
    if len(known) < len(asked) or different == len(known):
        return ()
    return (
        f"n counts {len(known)} completions of {different} different instruction{'s' if different > 1 else ''}; the interval "
        "takes them as independent, so it is too narrow",
    )
