"""What a run has found so far, on standard error while it works."""

from collections.abc import Callable
from itertools import groupby
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from demur.runs.partial_results import FirstRates, Partial


def shown_while_working(quiet: bool) -> "Callable[[Partial], object] | None":
    """Prints partial results on standard error; None if `quiet`, so that they are not computed."""
    return None if quiet else _show


def _show(found: "Partial") -> None:
    from demur.runs.partial_results import FirstRates

    if isinstance(found, FirstRates):
        for line in first_lines(found):
            typer.echo(line, err=True)
        return
    from io import StringIO

    from rich.console import Console

    from demur.cli.printing import output_width
    from demur.report.terminal import terminal_table

    # Through typer, so that it appears above a bar; a console of its own would write into it.
    written = StringIO()
    width = output_width(errors=True)
    Console(file=written, width=width).print(terminal_table(found, width), markup=False, highlight=False)
    typer.echo(f"\nFinished so far:\n\n{written.getvalue()}", err=True)


def first_lines(found: "FirstRates") -> list[str]:
    """One sentence for each arm.

    Args:
        found: first rates of one checkpoint.
    """
    arms = {rate.target for rate in found.rates}
    lines = []
    for target, rates in groupby(found.rates, key=lambda rate: rate.target):
        name = target if len(arms) > 1 else target.partition("/")[0]
        counts = " and ".join(f"{rate.refusals} of {rate.n} {rate.instructions}" for rate in rates)
        lines.append(f"so far: {name} without an edit refuses {counts} instructions ({found.judge}; longest prompts first)")
    return lines
