"""The command diff: what fine-tuning changed."""

from pathlib import Path
from typing import Annotated

import typer

from demur.cli.app import STUDIES, Device, Quiet, Settings, StudyName, command


@command(
    STUDIES,
    "demur diff demo",
    "demur diff mine.toml --out runs/mine",
    resumes=True,
)
def diff(
    study: StudyName,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="run folder; runs/NAME-diff unless given")
    ] = None,
    set_: Settings = None,
    device: Device = "auto",
    fresh: Annotated[bool, typer.Option("--fresh", help="start over in a folder that holds a run")] = False,
    quiet: Quiet = False,
) -> None:
    """Measure what fine-tuning changed in a pair.

    Puts the residual stream of one checkpoint into the other, layer by layer, and measures refusals. Prints the argument and the
    path of the page. Edits of the study are not made. After an interruption, the same command continues and repeats nothing.
    """
    from demur.cli.progress_bars import bars
    from demur.cli.shown.shown_run import told
    from demur.runs.diffing.diff_run import diff as carry_out
    from demur.study.study_files import load_study

    chosen = load_study(study, list(set_ or ()))
    with carry_out(chosen, out=out, device=device, fresh=fresh, phases=bars(quiet), tell=told(quiet)) as finished:
        summary = finished.summary_record()
        several = len({step.subject for step in summary.changed}) > 1
        for step in summary.changed:
            typer.echo(f"{step.subject}: {step.question}" if several else step.question)
            typer.echo(f"  {step.answer if step.shown else f'(not shown) {step.answer}'}")
            typer.echo(f"  {step.evidence}")
        for warning in summary.warnings:
            typer.echo(f"Note: {warning}")
        typer.echo(str(finished.path / "report.html"))
