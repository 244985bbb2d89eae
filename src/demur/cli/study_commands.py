"""Commands on studies and their runs: run, plan, presets, report, compare, export."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from demur.cli import shell_completion
from demur.cli.app import (
    STUDIES,
    Device,
    ExecutorName,
    FreeDisk,
    MaxCost,
    MoreRuns,
    OtherDType,
    PlannedDevice,
    Quantise,
    Quiet,
    RunA,
    RunB,
    RunFolder,
    Settings,
    ShardName,
    StudyName,
    Workers,
    command,
)
from demur.cli.printing import exact, note, output_width
from demur.cli.shown.shown_run import fail_if_unjudged, print_parts, show_run, told
from demur.core.atomic_files import replace_file
from demur.core.errors import InputError

if TYPE_CHECKING:
    from demur.study.spec import Study

Limit = Annotated[int | None, typer.Option(metavar="N", help="at most this many test instructions of each kind")]


def _study(spec: str, settings: list[str] | None, limit: int | None, dtype: str | None, quantise: str | None) -> "Study":
    from demur.study.study_files import load_study

    changes = [*(settings or ()), *([f'dtype="{dtype}"'] if dtype else ())]
    study = load_study(spec, changes)
    study = study if quantise is None else study.quantised(quantise)
    return study if limit is None else study.limited(limit)


@command(
    STUDIES,
    "demur run demo",
    "demur run demo --limit 10 --out runs/small",
    "demur run qwen1.5-0.5b --set checkpoints.chat.model=/path/to/model --out runs/mine",
    resumes=True,
)
def run(
    study: StudyName,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="DIR", help="run folder; runs/NAME unless given")] = None,
    set_: Settings = None,
    limit: Limit = None,
    device: Device = "auto",
    dtype: OtherDType = None,
    quantise: Quantise = None,
    until_verdict: Annotated[
        bool,
        typer.Option(
            "--until-verdict", help="end a completion when no further text can change the verdicts of the study's judges"
        ),
    ] = False,
    max_cost: MaxCost = None,
    free_disk: FreeDisk = False,
    executor: ExecutorName = None,
    workers: Workers = None,
    shard: ShardName = None,
    judge_shard: Annotated[
        bool, typer.Option("--judge-shard", help="with --shard: judge its completions here instead of in demur merge")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="start over in a folder that holds a run")] = False,
    quiet: Quiet = False,
) -> None:
    """Carry out a study, or resume it where it stopped.

    Ends with the result table and the path of the report. After an interruption, the same command continues and repeats nothing.
    """
    from demur.cli.progress_bars import bars
    from demur.cli.shown.partial_shown import shown_while_working

    settings = [*(set_ or ()), *(["until_verdict=true"] if until_verdict else ())]
    chosen = _study(study, settings, limit, dtype, quantise)
    from demur.runs.runner import run as carry_out

    folder = out or Path("runs") / (chosen.name if shard is None else f"{chosen.name}-{shard.replace('/', '-of-')}")
    show, tell = shown_while_working(quiet), told(quiet)
    with carry_out(
        chosen,
        folder,
        device=device,
        fresh=fresh,
        phases=bars(quiet),
        executor=executor,
        workers=workers,
        shard=shard,
        judge_shard=judge_shard,
        tell=tell,
        show=show,
        max_cost=max_cost,
        free_disk=free_disk,
    ) as finished:
        if shard is not None:
            typer.echo(f"the shard {shard} is finished in {folder}; demur merge joins it with the others")
            if judge_shard:
                fail_if_unjudged(finished)
            return
        show_run(finished)
        fail_if_unjudged(finished)


@command(STUDIES, "demur merge runs/demo-1-of-2 runs/demo-2-of-2 --out runs/demo", resumes=True)
def merge(
    run_dirs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN_DIR...", help="the folders of all shards", autocompletion=shell_completion.runs),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="the folder of the whole run")],
    mixed: Annotated[
        bool, typer.Option("--mixed", help="join shards that were made with different versions or kinds of device")
    ] = False,
    max_cost: MaxCost = None,
    quiet: Quiet = False,
) -> None:
    """Join the shards of a study into one run, and report it.

    The shards are the folders of demur run --shard I/N. Checks that their study, instructions, weights, prompts and versions are
    the same, and that none is missing. Completions that no shard has judged are judged now.
    """
    from demur.cli.progress_bars import bars
    from demur.runs.sharding.merge import merge as join

    with join(run_dirs, out, mixed=mixed, max_cost=max_cost, phases=bars(quiet), tell=note) as finished:
        show_run(finished)
        fail_if_unjudged(finished)


@command(STUDIES, "demur plan gemma-2-9b", "demur plan demo --limit 10", "demur plan gemma-2-9b --device h100 --workers 4")
def plan(
    study: StudyName,
    set_: Settings = None,
    limit: Limit = None,
    device: PlannedDevice = "auto",
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="spread the study over N workers, each with such a device")
    ] = None,
    dtype: OtherDType = None,
    quantise: Quantise = None,
    quiet: Quiet = False,
) -> None:
    """Show the size and cost of a study, without loading weights.

    Cells, tokens, loads, memory, and about how long it will take on this machine or on another device.
    """
    from demur.study.plan_outlook import look_ahead
    from demur.study.plan_text import plan_lines

    for line in plan_lines(look_ahead(_study(study, set_, limit, dtype, quantise), device, workers)):
        typer.echo(line)


@command(STUDIES, "demur presets")
def presets(quiet: Quiet = False) -> None:
    """List the studies that ship with demur."""
    from demur.study.study_files import load_study, preset_names

    names = preset_names()
    for name in names:
        typer.echo(f"{name:{max(map(len, names))}}  {load_study(name).summary}")


@command(
    STUDIES,
    "demur report runs/demo",
    "demur report runs/demo --judge taxonomy",
    "demur report /archive/demo --out runs/demo",
    "demur report runs/demo --no-figures",
)
def report(
    run_dir: RunFolder,
    judge: Annotated[
        list[str] | None,
        typer.Option(
            "--judge",
            "-j",
            metavar="NAME",
            help="add a judge: {judge names}, module:Class, or a TOML file; may be repeated",
            autocompletion=shell_completion.judges,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="copy the run into this folder first, and report it there"),
    ] = None,
    figures: Annotated[
        bool | None,
        typer.Option(
            "--figures/--no-figures", help="draw every file in figures/ again, or none; otherwise those that are out of date"
        ),
    ] = None,
    max_cost: MaxCost = None,
    quiet: Quiet = False,
) -> None:
    """Rebuild the page, figures and tables of a run.

    They are made from the stored results. Completions without a verdict are judged first. A judge that is added stays in the run.
    The page is written first. The files in figures/ take longer, so only those are drawn that are missing or out of date.
    An archived run that cannot be written is copied with --out.
    """
    from demur.cli.progress_bars import bars
    from demur.runs.run import open_run

    with ExitStack() as opened:
        found = opened.enter_context(open_run(run_dir))
        if out is not None:
            found = opened.enter_context(found.copied_to(out))
        if judge:
            found.add_judges(judge)
        chosen: Literal["changed", "all", "none"] = "changed" if figures is None else "all" if figures else "none"
        found.report(waiting=note, figures=chosen, page_written=lambda _: show_run(found), phases=bars(quiet), max_cost=max_cost)
        fail_if_unjudged(found)


@command(
    STUDIES,
    "demur compare runs/demo runs/mine",
    "demur compare runs/first runs/second runs/third",
    "demur compare runs/demo runs/pair --match before=base --match after=chat",
)
def compare(
    run_a: RunA,
    run_b: RunB,
    more: MoreRuns = None,
    match: Annotated[
        list[str] | None,
        typer.Option(
            metavar="A_NAME=B_NAME",
            help="the checkpoint, prompt format or arm called A_NAME in RUN_A is called B_NAME in the others; may be repeated",
        ),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            "--judge",
            "-j",
            metavar="NAME",
            help="judge whose verdicts are compared; by default the first of RUN_A",
            autocompletion=shell_completion.judges,
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Compare runs with the first one, with paired tests.

    Shows the settings that differ. Tests the cells that both runs have, over the instructions that both runs have.
    """
    from demur.analysis.matched_names import read_matches
    from demur.report.terminal import terminal_comparison
    from demur.runs.compare import compare_runs
    from demur.runs.run import open_run

    matches, folders = read_matches(match or ()), [run_a, run_b, *(more or ())]
    with ExitStack() as opened:
        runs = [opened.enter_context(open_run(folder)) for folder in folders]
        found = compare_runs(runs[0], *runs[1:], matches=matches)
    print_parts(terminal_comparison(found, list(map(str, folders)), judge, output_width()))


@command(
    STUDIES,
    "demur export runs/demo > completions.csv",
    "demur export runs/demo --format parquet --out completions.parquet",
    "demur export runs/demo --format latex --out results.tex",
)
def export(
    run_dir: RunFolder,
    format: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            metavar="FORMAT",
            help="one of {export names}",
            autocompletion=shell_completion.export_formats,
        ),
    ] = "csv",
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="a file; standard output unless given")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="csv with every text unchanged, for programs")] = False,
    quiet: Quiet = False,
) -> None:
    """Write a run in another program's format.

    csv, jsonl and parquet have one row for each completion, with the verdicts of every judge; latex has only the result table.
    In csv, a text that a spreadsheet would compute, such as =1+1, gets an apostrophe in front, unless --raw is given.
    """
    from demur.runs.exports.export import export_format
    from demur.runs.run import open_run

    chosen = export_format(format)
    if out is not None and not out.parent.is_dir():
        raise InputError(f"there is no folder {str(out.parent)!r} for {out.name!r}; make it first, or name a file elsewhere")
    if out is None and chosen.binary:
        raise InputError(f"a file of format {format!r} is not text; name a file with --out FILE")
    if raw and not hasattr(chosen, "raw_content"):
        raise InputError(f"--raw is for csv; the format {format!r} holds every text unchanged anyway")
    with open_run(run_dir) as opened:
        content = chosen.raw_content(opened) if raw and hasattr(chosen, "raw_content") else chosen.content(opened)
    if out is None:
        exact(str(content))
    else:
        typer.echo(str(replace_file(out, content)))
