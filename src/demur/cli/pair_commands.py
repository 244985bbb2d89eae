"""Commands that make a study of two checkpoints: pair, init."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from demur.cli import shell_completion
from demur.cli.app import STUDIES, Device, DType, Quiet, SystemSentence, command
from demur.cli.prompt_notes import system_of
from demur.core.atomic_files import replace_file
from demur.core.errors import InputError

if TYPE_CHECKING:
    from demur.runs.pair import PairStudy

Base = Annotated[str, typer.Argument(help="a checkpoint: MODEL or MODEL+ADAPTER", metavar="BASE")]
Chat = Annotated[str, typer.Argument(help="the checkpoint that was made from it", metavar="CHAT")]
Prompts = Annotated[
    list[str] | None,
    typer.Option(
        "--prompt",
        "-p",
        metavar="FORMAT",
        help="a prompt format for both; chosen from their chat templates unless given; may be repeated",
        autocompletion=shell_completion.prompts,
    ),
]
Instructions = Annotated[
    tuple[str, str] | None,
    typer.Option(
        "--instructions",
        "-i",
        metavar="HARMFUL HARMLESS",
        help="two instruction sets: names or files; contrast-harmful contrast-harmless unless given",
    ),
]
Quick = Annotated[bool, typer.Option("--quick", help="fewer instructions: a first look in a quarter of the time")]


@command(
    STUDIES,
    "demur pair Qwen/Qwen1.5-0.5B Qwen/Qwen1.5-0.5B-Chat",
    "demur pair base/ base/+adapter/ --quick",
    "demur pair base/ chat/ --instructions harmful.csv harmless.csv --out runs/mine",
    resumes=True,
)
def pair(
    base: Base,
    chat: Chat,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="DIR", help="run folder; runs/NAME unless given")] = None,
    prompt: Prompts = None,
    system: SystemSentence = None,
    instructions: Instructions = None,
    quick: Quick = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show the plan and stop")] = False,
    device: Device = "auto",
    dtype: DType = "float32",
    fresh: Annotated[bool, typer.Option("--fresh", help="start over in a folder that holds a run")] = False,
    quiet: Quiet = False,
) -> None:
    """Compare a base checkpoint with its chat checkpoint.

    Chooses prompt formats that both share, and layer and dose on validation instructions; then runs, judges and reports. The
    study is written into the run folder. After an interruption, the same command continues and repeats nothing.
    """
    made = _study(base, chat, prompt, system, instructions, quick, dtype)
    if dry_run:
        from demur.study.plan_outlook import look_ahead
        from demur.study.plan_text import plan_lines

        for line in (*plan_lines(look_ahead(made.study, device)), *(f"note     {note}" for note in made.notes)):
            typer.echo(line)
        return
    from demur.cli.progress_bars import bars
    from demur.cli.shown.partial_shown import shown_while_working
    from demur.cli.shown.shown_run import fail_if_unjudged, show_run, told
    from demur.runs.runner import run as carry_out

    folder = out or Path("runs") / made.study.name
    with carry_out(
        made.study,
        folder,
        device=device,
        fresh=fresh,
        phases=bars(quiet),
        notes=made.notes,
        tell=told(quiet),
        show=shown_while_working(quiet),
    ) as finished:
        show_run(finished)
        fail_if_unjudged(finished)


@command(STUDIES, "demur init Qwen/Qwen1.5-0.5B Qwen/Qwen1.5-0.5B-Chat", "demur init base/ chat/ --out mine.toml")
def init(
    base: Base,
    chat: Chat,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="the study file to write")] = Path("study.toml"),
    prompt: Prompts = None,
    system: SystemSentence = None,
    instructions: Instructions = None,
    quick: Quick = False,
    dtype: DType = "float32",
    quiet: Quiet = False,
) -> None:
    """Write a commented study of two checkpoints, to edit and run.

    It is the study that demur pair runs for them.
    """
    from demur.study.commented_study import commented_toml

    if out.exists():
        raise InputError(f"{str(out)!r} exists already; name another file with --out")
    made = _study(base, chat, prompt, system, instructions, quick, dtype)
    typer.echo(str(replace_file(out, commented_toml(made.study))))
    for note in made.notes:
        typer.echo(f"Note: {note}", err=True)
    typer.echo(f"demur run {out} carries it out; demur plan {out} shows its cost", err=True)


def _study(
    base: str,
    chat: str,
    prompt: list[str] | None,
    system: str | None,
    instructions: tuple[str, str] | None,
    quick: bool,
    dtype: str,
) -> "PairStudy":
    """The study of the options that both commands have."""
    from demur.runs.pair import SETS, pair_study

    return pair_study(
        base,
        chat,
        prompts=tuple(prompt or ()),
        instructions=instructions or SETS,
        quick=quick,
        dtype=dtype,
        system=system_of(system),
    )
