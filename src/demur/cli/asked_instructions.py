"""Reads the instructions that a command asks for: a set, texts, or standard input. Prints notes on a file to standard error."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from demur.cli.printing import note
from demur.core.errors import InputError

if TYPE_CHECKING:
    from demur.inputs.instructions import InstructionSet


def asked_instructions(spec: str) -> "InstructionSet":
    """A set of instructions that is not split, unless it has splits of its own.

    Args:
        spec: a registered set, a file, or `file:column`.
    """
    from demur.inputs.instructions import read_instructions

    found = read_instructions(spec, split=False)
    for text in found.notes:
        note(text)
    return found


def read_split(side: "InstructionSet") -> str:
    """The split that directions and means are made from: the training part, or the only part if there is no training part."""
    return "train" if side.splits.get("train") else "test"


STANDARD_INPUT = "-"


def given_instructions(spec: str | None, texts: Sequence[str] | None) -> tuple[str, ...]:
    """The test instructions of a set, or texts that were given as they are, or the lines of standard input.

    Args:
        spec: a set of instructions; `-` is standard input, None if none was named.
        texts: the texts; `-` stands for the lines of standard input.

    Raises:
        InputError: if both are given, if nothing is given and standard input is a terminal, or if a text is empty.
    """
    if spec is not None and texts:
        raise InputError("--instructions names a set and --instruction gives a text; give one of them")
    if spec is not None and spec != STANDARD_INPUT:
        return asked_instructions(spec).take("test")
    if not texts and spec is None and sys.stdin.isatty():
        raise InputError(
            "no instructions were given; name a set with --instructions, give a text with --instruction, or send lines to "
            "standard input"
        )
    found: list[str] = []
    for text in texts or [STANDARD_INPUT]:
        found += _lines() if text == STANDARD_INPUT else [text]
    if not found:
        raise InputError("standard input holds no instruction; send one a line, or name a file with --instructions")
    if any(not text.strip() for text in found):
        raise InputError("an instruction is empty; give its text")
    return tuple(found)


def _lines() -> list[str]:
    # Bytes are read as UTF-8, whatever the locale says.
    try:
        text = sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"standard input is not UTF-8 (byte {error.start}); convert it first") from error
    return [line.rstrip("\r") for line in text.split("\n") if line.strip()]
