"""Instructions that stand one a line in a text file, and what such a file holds when it is something else.

A line is the instruction, letter by letter. So a table, JSON lines, and lines with numbers, bullets or quotation marks around
them are refused: these marks would become part of every prompt.
"""

import json
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from demur.core.errors import InputError
from demur.inputs.separated_tables import SEPARATORS

_NUMBERED = re.compile(
    r"(?:(?:Q|No|Nr|Question|Prompt|Instruction|Example|Item|Goal)\.?\s*)?[(\[#]?(\d{1,6})(?:[.):\]]+\s+|[.)\]]+(?=[^\W\d])|\s+[-\u2013]\s+|\t)(?=\S)"
)
_NUMBER_ALONE = re.compile(r"(\d{1,6}) +(?=\S)")
_BULLET = re.compile(r"(?:[-*\u2022]\s+)(?=\S)")
_QUOTES = (('"', '"'), ("\u201c", "\u201d"), ("'", "'"))
_SINGULAR = ("instruction", "prompt", "goal", "question", "query", "request", "text", "behavior", "behaviour", "message")
COLUMN_NAMES = frozenset((*_SINGULAR, *(f"{name}s" for name in _SINGULAR), "queries"))
"""Names that columns of instructions have in published files, in lower case."""


def instruction_lines(text: str, path: Path) -> list[str]:
    """The lines of a text file that are not empty.

    Raises:
        InputError: if the lines are those of a table or of JSON, or have quotation marks around them, or if the first one is the
            name of a column.
    """
    # Not `splitlines`, which also splits at other characters; texts from the web contain those.
    lines = [line for line in re.split(r"\r\n|\n|\r", text) if line.strip()]
    if not lines:
        return []
    first = lines[0].strip()
    if len(lines) > 1 and first.casefold() in COLUMN_NAMES:
        raise InputError(f"line 1 of {str(path)!r} is {first!r}, the name of a column; rename the file to .csv")
    if all(line.lstrip().startswith("{") for line in lines) and _is_json(lines[0]):
        raise InputError(f"the lines of {str(path)!r} are JSON objects; rename the file to .jsonl")
    for mark, name in SEPARATORS.items():
        cells = [cell.strip().strip('"').casefold() for cell in first.split(mark)]
        if len(cells) > 1 and (mark == "\t" or len(lines) > 1) and any(cell in COLUMN_NAMES for cell in cells):
            names = ", ".join(cells)
            raise InputError(f"{str(path)!r} is a table with the columns {names}, separated by {name}; rename it to .csv")
    if len(lines) > 1 and len({line.count("\t") for line in lines}) == 1 and "\t" in lines[0].strip():
        raise InputError(f"every line of {str(path)!r} has columns separated by tabs; rename it to .tsv, with names in line 1")
    if len(lines) > 1:
        for begin, end in _QUOTES:
            if all(len(line.strip()) > 1 and line.strip()[0] == begin and line.strip().rstrip(",")[-1] == end for line in lines):
                raise InputError(
                    f"every line of {str(path)!r} is in quotation marks, which would be part of the instruction; remove them, or "
                    "write the file as .csv with a line of names above"
                )
    return lines


def refuse_numbering(texts: Sequence[str], where: str) -> None:
    """Refuse instructions that all begin with their number in a list, or all with a bullet.

    Args:
        texts: the instructions of a file, in its order.
        where: the name of the file in the error.

    Raises:
        InputError: for such a list. Instructions that begin with numbers for other reasons are not in ascending order.
    """
    for pattern, least, step in ((_NUMBERED, 2, None), (_NUMBER_ALONE, 3, 1)):
        found = [pattern.match(text) for text in texts]
        numbers = [int(match[1]) for match in found if match is not None]
        pairs = list(pairwise(numbers))
        rising = all(a < b if step is None else b - a == step for a, b in pairs)
        if len(texts) >= least and len(numbers) == len(texts) and rising and found[0] is not None:
            raise _marked("its number", found[0][0], where)
    bullets = [_BULLET.match(text) for text in texts]
    if len(texts) > 1 and all(bullets) and bullets[0] is not None:
        raise _marked("a bullet", bullets[0][0], where)


def _marked(what: str, mark: str, where: str) -> InputError:
    return InputError(
        f"every instruction in {where!r} begins with {what}, such as {mark!r}, which would be part of the prompt; remove these "
        "marks from the file"
    )


def _is_json(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
