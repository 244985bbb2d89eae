"""Commands for people's labels: label."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from demur.cli import shell_completion
from demur.cli.app import STUDIES, Quiet, RunFolder, command
from demur.cli.printing import note
from demur.core.errors import InputError

if TYPE_CHECKING:
    from demur.runs.labelling.label_session import LabelSession


@command(
    STUDIES,
    "demur label runs/demo",
    "demur label runs/demo --labeller ann --n 300",
    "demur label runs/demo --labeller bob --page",
    "demur label runs/demo --from labels.csv --labeller ann",
    resumes=True,
)
def label(
    run_dir: RunFolder,
    labeller: Annotated[str, typer.Option(metavar="NAME", help="who labels; each labeller has an own random order")] = "person-1",
    judge: Annotated[
        str | None,
        typer.Option(
            "--judge",
            "-j",
            metavar="NAME",
            help="the judge whose labels are given; taxonomy unless given",
            autocompletion=shell_completion.judges,
        ),
    ] = None,
    n: Annotated[
        int | None, typer.Option("--n", metavar="N", help="completions in the sample, 200 unless given; it can be enlarged later")
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="the seed of the sample, 0 unless given")] = None,
    page: Annotated[bool, typer.Option("--page", help="label on a local page in a browser")] = False,
    from_: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="read labels from a file (.csv, .jsonl) with the columns key, index, label"),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Label completions by hand, to measure the judges of a run.

    Shows a random sample of completions one by one, without checkpoint, edit and judges. Each label is stored at once; the same
    command resumes. The next demur report shows how well judges and labellers agree, and rates corrected for the judges' errors.
    """
    from demur.runs.labelling.label_session import open_labelling

    if page and from_ is not None:
        raise InputError("--page and --from cannot be used together; give one of them")
    with open_labelling(run_dir, labeller, judge=judge, n=n, seed=seed) as session:
        if from_ is not None:
            from demur.runs.labelling.label_import import import_labels

            typer.echo(f"{import_labels(session, from_)} labels read")
        elif page:
            from demur.cli.labelling.label_server import serve

            serve(session, lambda address: note(f"label on this page: {address} (Ctrl-C ends it)"))
        else:
            from demur.cli.labelling.terminal_labelling import label_in_terminal

            label_in_terminal(session)
        _say_progress(session, run_dir)


def _say_progress(session: "LabelSession", run_dir: Path) -> None:
    done = session.progress()
    skipped = f", {done.skipped} skipped" if done.skipped else ""
    typer.echo(f"{session.labeller}: {done.labelled} of {done.total} labelled{skipped}")
    rest = f"demur report {run_dir} shows what the labels say"
    if done.labelled + done.skipped < done.total:
        rest = f"the same command resumes; {rest}"
    note(rest)
