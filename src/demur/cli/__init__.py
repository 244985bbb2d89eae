"""The command line: one function a command, each a few lines over the public API. The only package that prints.

Results go to standard output, progress and messages to standard error. Nothing heavy is imported before a command does its work,
so help answers at once. Every command takes --quiet, also those that have no progress to show, so that a script can always pass
it.
"""

# Commands are registered, and listed by help, in the order of the imports.
# ruff: noqa: I001

from typing import Annotated

import typer

from demur.cli import studies, weights, choices, files, convert
from demur.cli.base import app

__all__ = ["app", "choices", "convert", "files", "main", "studies", "weights"]


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="print the version")] = False,
) -> None:
    """Applies to all commands."""
    if show:
        from demur import __version__

        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Entry point of the `demur` command."""
    app()
