"""Prints completions for a reader."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from demur.engine.generate import Completion


def print_completions(rows: "Sequence[Completion]") -> None:
    """Print completions on standard output; if there are several, each below its instruction."""
    if len(rows) == 1:
        typer.echo(rows[0].text)
        return
    for place, row in enumerate(rows):
        if place:
            typer.echo()
        typer.echo("\n".join(f"> {line}" for line in row.instruction.split("\n")))
        typer.echo(row.text)
