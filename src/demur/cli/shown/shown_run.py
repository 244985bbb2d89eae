"""Prints a finished run: its answers, the result table, and the path of its page."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from textwrap import fill
from typing import TYPE_CHECKING, Any

import typer

from demur.cli.printing import console, output_width
from demur.core.errors import WorkError

if TYPE_CHECKING:
    from demur.runs.run import Run

_MOST_NOTES = 10
"""Of more notes on a run, a terminal shows the first ones."""


def told(quiet: bool) -> Callable[[str], object]:
    """Prints sentences on standard error; prints nothing if `quiet`."""
    return (lambda _: None) if quiet else partial(typer.echo, err=True)


def show_run(finished: "Run") -> None:
    """Prints the answers of a finished run and the path of its page, then the results.

    The path is printed once more at the end, because a long table moves the first lines out of sight.
    """
    from demur.report.complete_summary import parsed_summary
    from demur.report.published_tables import terminal_published
    from demur.report.terminal import terminal_hypotheses, terminal_table

    # The report has just been written, so its numbers are not computed again.
    summary = parsed_summary(json.loads((finished.path / "summary.json").read_text(encoding="utf-8")))
    width = output_width()
    page = str(finished.path / "report.html")
    claims = terminal_hypotheses(summary, width)
    if claims:
        print_parts([*claims, ""])
    if summary.answers:
        print_parts([*(f"{'' if each.shown else '(not shown) '}{each.text}" for each in summary.answers)])
        typer.echo(f"{page}\n")
    parts: list[Any] = [terminal_table(summary, width)]
    for part in terminal_published(summary, width):
        parts += [part] if isinstance(part, str) else ["", part]
    effects = [claim for claim in summary.claims if claim.about == "effect"]
    hidden = sum(not claim.shown for claim in effects)
    if hidden:
        parts.append(f"{hidden} of {len(effects)} effects {'is' if hidden == 1 else 'are'} not shown; the page lists them all.")
    print_parts([*parts, *_notes(summary.warnings)])
    # Not through the console: a path must not be wrapped.
    typer.echo(page)


def _notes(warnings: Sequence[str]) -> list[str]:
    """The warnings as notes; of many, the first ones and how many more the page has."""
    notes = [f"Note: {warning}" for warning in warnings]
    if len(notes) <= _MOST_NOTES:
        return notes
    kept = notes[: _MOST_NOTES - 1]
    return [*kept, f"Note: the page has {len(notes) - len(kept)} more notes."]


def fail_if_unjudged(finished: "Run") -> None:
    """Raises `WorkError` if a judge failed on some completions, with the number and the reason."""
    if said := finished.unjudged():
        raise WorkError(f"{' '.join(said)} Everything else is kept; the same command judges only these completions again.")


def print_parts(parts: Sequence[Any]) -> None:
    """Tables and sentences on standard output, with no colours in a pipe. No line ends inside a number."""
    from demur.core.number_format import TIE, tied

    width = output_width()
    shown = console(width=width)
    for part in parts:
        if isinstance(part, str):
            typer.echo(fill(tied(part), width, break_on_hyphens=False).replace(TIE, " "))
        else:
            shown.print(part, markup=False, highlight=False)
