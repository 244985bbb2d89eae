"""Reads the instructions that a command asks for, and prints the notes on their file to standard error."""

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from demur.inputs.instructions import InstructionSet


def note(text: str) -> None:
    """Print a note to standard error."""
    typer.echo(f"note: {text}", err=True)


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
