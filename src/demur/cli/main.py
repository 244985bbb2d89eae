"""The command line. Each command is one short function that calls the public API. No other package prints.

Results go to standard output, progress and messages to standard error. Nothing heavy is imported before a command does its work,
so help appears at once. Every command accepts --quiet, even if it shows no progress, so that a script can always pass it.
"""

# Commands are registered, and listed by help, in the order of the imports.
# ruff: noqa: I001, F401

from typing import Annotated

import typer

from demur.cli import pair_commands
from demur.cli import study_commands
from demur.cli import diff_command
from demur.cli import checkpoint_commands
from demur.cli.selecting import selection_commands
from demur.cli import judge_command
from demur.cli.labelling import label_command
from demur.cli import direction_commands
from demur.cli.app import app


@app.callback(invoke_without_command=True)
def version(
    context: typer.Context,
    show: Annotated[bool, typer.Option("--version", help="print the version")] = False,
) -> None:
    """Applies to all commands."""
    if show:
        from demur import __version__

        typer.echo(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """Entry point of the `demur` command."""
    app()
