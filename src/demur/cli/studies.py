"""Commands on studies and the runs made of them: run, plan, presets, report, compare, export."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from demur.cli.base import Device, Quantise, Quiet, RunFolder, Settings, StudyName, command
from demur.errors import InputError
from demur.files import replace_file


def _study(spec: str, settings: list[str] | None, limit: int | None, dtype: str | None, quantise: str | None) -> Any:
    from demur.study import load_study

    changes = [*(settings or ()), *([f'dtype="{dtype}"'] if dtype else ())]
    study = load_study(spec, changes)
    study = study if quantise is None else study.quantised(quantise)
    return study if limit is None else study.limited(limit)


@command
def run(
    study: StudyName,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="run folder; runs/NAME unless given")] = None,
    set_: Settings = None,
    limit: Annotated[int | None, typer.Option(help="at most this many test instructions of each kind")] = None,
    device: Device = "auto",
    dtype: Annotated[str | None, typer.Option(help="precision of the weights, in place of the study's")] = None,
    quantise: Quantise = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="start over in a folder that holds a run")] = False,
    quiet: Quiet = False,
) -> None:
    """Carry out a study; the same command again goes on where it stopped. Example: demur run demo --out runs/demo"""
    from demur.progress import bars

    chosen = _study(study, set_, limit, dtype, quantise)
    from demur.runner import run as carry_out

    finished = carry_out(chosen, out or Path("runs") / chosen.name, device=device, fresh=fresh, phases=bars(quiet))
    _show(finished)


def _show(finished: Any) -> None:
    from rich.console import Console, Group

    from demur.report.beside import terminal_published
    from demur.report.tables import terminal_table

    # The report has just been written, so its numbers are not computed again.
    summary = json.loads((finished.path / "summary.json").read_text(encoding="utf-8"))
    console = Console(width=None if sys.stdout.isatty() else 80)
    console.print(terminal_table(summary))
    for part in terminal_published(summary):
        console.print(part if isinstance(part, str) else Group("", part), markup=False, highlight=False)
    for claim in summary["claims"]:
        console.print(("" if claim["shown"] else "(not shown) ") + claim["text"], markup=False, highlight=False)
    for warning in summary["warnings"]:
        console.print(f"Note: {warning}", markup=False, highlight=False)
    # Not through the console: a path must not be wrapped.
    typer.echo(str(finished.path / "report.html"))


@command
def plan(
    study: StudyName,
    set_: Settings = None,
    limit: Annotated[int | None, typer.Option(help="at most this many test instructions of each kind")] = None,
    device: Device = "auto",
    dtype: Annotated[str | None, typer.Option(help="precision of the weights, in place of the study's")] = None,
    quantise: Quantise = None,
    quiet: Quiet = False,
) -> None:
    """Show what a study comes to, without loading weights. Example: demur plan gemma-2-9b"""
    from demur.outlook import outlook

    # All of it or nothing: a refusal on the way leaves no half of a plan.
    for line in list(outlook(_study(study, set_, limit, dtype, quantise), device)):
        typer.echo(line)


@command
def presets(quiet: Quiet = False) -> None:
    """List the studies that ship."""
    from demur.study import load_study, preset_names

    for name in preset_names():
        typer.echo(f"{name:14} {load_study(name).summary}")


@command
def report(run_dir: RunFolder, quiet: Quiet = False) -> None:
    """Rebuild report.html, summary.json, figures and tables from what is stored."""
    from demur.runs import open_run

    opened = open_run(run_dir)
    opened.report()
    _show(opened)


@command
def compare(run_a: RunFolder, run_b: RunFolder, quiet: Quiet = False) -> None:
    """The cells that both runs have, side by side, with a paired test over the instructions that both have."""
    from demur.exports import shared_cells
    from demur.runs import open_run

    for line in shared_cells(open_run(run_a), open_run(run_b)):
        typer.echo(line)


@command
def export(
    run_dir: RunFolder,
    format: Annotated[Literal["csv", "jsonl", "parquet", "latex"], typer.Option("--format", "-f")] = "csv",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="a file; standard output unless given")] = None,
    quiet: Quiet = False,
) -> None:
    """Completions and verdicts as CSV, JSONL or Parquet; the result table as LaTeX."""
    from demur.exports import exported
    from demur.runs import open_run

    if out is None and format == "parquet":
        raise InputError("a Parquet file is not text; say where to write it with --out FILE")
    content = exported(open_run(run_dir), format)
    if out is None:
        typer.echo(content, nl=False)
    else:
        typer.echo(str(replace_file(out, content)))
