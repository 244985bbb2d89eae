"""The command line: one function a command, each a few lines over the public API. The only file that prints.

Results go to standard output, progress and messages to standard error. Nothing heavy is imported before a command does its work,
so help answers at once. Exit status: 0 done, 1 the work failed, 2 bad input, 130 interrupted. Every command takes --quiet, also
those that have no progress to show, so that a script can always pass it.
"""

import json
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, ParamSpec

import typer

from demur.errors import DemurError, InputError, WorkError

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Measure how often language-model checkpoints refuse, find the direction that carries it, move it between checkpoints.",
)

Model = Annotated[str, typer.Option("--model", "-m", help="hub id owner/name[@revision], a folder, or a .gguf file")]
Adapter = Annotated[str | None, typer.Option("--adapter", "-a", help="PEFT adapter: a folder or a hub id")]
Format = Annotated[str, typer.Option("--prompt", "-p", help="a prompt format, native, or a text with {instruction}")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="no progress on standard error")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1")]
DType = Annotated[str, typer.Option("--dtype", help="float32, bfloat16, float16")]
StudyName = Annotated[str, typer.Argument(help="a preset's name or a TOML file", metavar="STUDY")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE, for example direction.pairs=64; may be repeated")]
RunFolder = Annotated[Path, typer.Argument(help="a run folder", metavar="RUN_DIR")]


def _fail(status: int, message: str) -> NoReturn:
    typer.echo(f"demur: {message}", err=True)
    raise typer.Exit(status)


P = ParamSpec("P")


def command(function: Callable[P, None]) -> Callable[P, None]:
    """Register a command whose refusals become one sentence and an exit status."""

    @wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except WorkError as error:
            _fail(1, str(error))
        except DemurError as error:
            _fail(2, str(error))
        except KeyboardInterrupt:
            _fail(130, "interrupted; the same command goes on where it stopped")

    return app.command()(guarded)


def _study(spec: str, settings: list[str] | None, limit: int | None, dtype: str | None) -> Any:
    from demur.study import load_study

    changes = [*(settings or ()), *([f'dtype="{dtype}"'] if dtype else ())]
    study = load_study(spec, changes)
    return study if limit is None else study.limited(limit)


@command
def run(
    study: StudyName,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="run folder; runs/NAME unless given")] = None,
    set_: Settings = None,
    limit: Annotated[int | None, typer.Option(help="at most this many test instructions of each kind")] = None,
    device: Device = "auto",
    dtype: Annotated[str | None, typer.Option(help="precision of the weights, in place of the study's")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="start over in a folder that holds a run")] = False,
    quiet: Quiet = False,
) -> None:
    """Carry out a study; the same command again goes on where it stopped. Example: demur run demo --out runs/demo"""
    from demur.progress import bars

    chosen = _study(study, set_, limit, dtype)
    from demur.runner import run as carry_out

    finished = carry_out(chosen, out or Path("runs") / chosen.name, device=device, fresh=fresh, phases=bars(quiet))
    _show(finished)


def _show(finished: Any) -> None:
    from rich.console import Console

    from demur.report.tables import terminal_table

    # The report has just been written, so its numbers are not computed again.
    summary = json.loads((finished.path / "summary.json").read_text(encoding="utf-8"))
    console = Console(width=None if sys.stdout.isatty() else 80)
    console.print(terminal_table(summary))
    for claim in summary["claims"]:
        console.print(("" if claim["shown"] else "(not shown) ") + claim["text"], markup=False, highlight=False)
    # Not through the console: a path must not be wrapped.
    typer.echo(str(finished.path / "report.html"))


@command
def plan(
    study: StudyName,
    set_: Settings = None,
    limit: Annotated[int | None, typer.Option(help="at most this many test instructions of each kind")] = None,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Show what a study comes to, without loading weights. Example: demur plan gemma-2-9b"""
    from demur.outlook import outlook

    for line in outlook(_study(study, set_, limit, None), device):
        typer.echo(line)


@command
def presets(quiet: Quiet = False) -> None:
    """List the studies that ship."""
    from demur.study import load_study, preset_names

    for name in preset_names():
        typer.echo(f"{name:14} {load_study(name).summary}")


@command
def extract(
    model: Model,
    prompt: Format,
    harmful: Annotated[str, typer.Option(help="instruction file, file:column, or a registered set")],
    harmless: Annotated[str, typer.Option(help="instruction file, file:column, or a registered set")],
    out: Annotated[Path, typer.Option("--out", "-o", help="a .safetensors file; one a layer where there are several")],
    adapter: Adapter = None,
    pairs: Annotated[int, typer.Option(help="instructions of each kind")] = 32,
    layer: Annotated[str, typer.Option("--layer", "-l", help="a layer, or all but the first")] = "all",
    position: Annotated[int, typer.Option(help="prompt token that is read, from the end")] = -1,
    device: Device = "auto",
    dtype: DType = "float32",
    quiet: Quiet = False,
) -> None:
    """Extract a refusal direction: difference of mean activations, harmful minus harmless, over training instructions."""
    import demur
    from demur.progress import bars

    asked, benign = (_training(demur.load_instructions(spec, split=False), pairs) for spec in (harmful, harmless))
    checkpoint = demur.load_checkpoint(model, adapter=adapter, dtype=dtype, device=device)
    # The first layer's input at a template token is that token's embedding, whatever the instruction: it has no direction.
    layers = list(range(1, checkpoint.n_layers)) if layer == "all" else [_layer(layer, checkpoint.n_layers)]
    with bars(quiet)("activations", 2 * pairs) as progress:
        found = demur.extract_directions(
            checkpoint,
            asked,
            benign,
            demur.prompt_format(prompt, checkpoint),
            layers=layers,
            position=position,
            name=out.stem,
            progress=progress,
        )
    for direction in found:
        path = out if len(found) == 1 else out.with_name(f"{out.stem}.layer{direction.layer}{out.suffix}")
        typer.echo(f"{direction.save(path)}  layer {direction.layer}  norm {direction.raw_norm:.4g}")


def _training(side: Any, pairs: int) -> tuple[str, ...]:
    return tuple(side.take("train" if side.splits.get("train") else "test", pairs))


def _layer(text: str, n_layers: int) -> int:
    if not text.lstrip("-").isdigit() or not 0 <= int(text) < n_layers:
        raise InputError(f"layer {text!r} is out of range: this model has layers 0 to {n_layers - 1}; or give all")
    return int(text)


@command
def generate(
    model: Model,
    prompt: Format,
    instructions: Annotated[str, typer.Option("--instructions", "-i", help="file, file:column, or a registered set")],
    out: Annotated[Path, typer.Option("--out", "-o", help="completions.jsonl")],
    adapter: Adapter = None,
    direction: Annotated[Path | None, typer.Option("--direction", "-d", help="a direction file")] = None,
    ablate: Annotated[bool, typer.Option("--ablate", help="remove the direction at every layer and site")] = False,
    add: Annotated[float | None, typer.Option("--add", help="add this multiple of the direction at its layer")] = None,
    unit: Annotated[str, typer.Option(help="what 1 adds: unit, raw or residual")] = "unit",
    layer: Annotated[int | None, typer.Option("--layer", "-l", help="layer of the edit, in place of the direction's")] = None,
    sites: Annotated[str | None, typer.Option(help="sites with commas: resid_pre,resid_mid,resid_post")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="length of a completion")] = 16,
    limit: Annotated[int | None, typer.Option(help="at most this many instructions")] = None,
    device: Device = "auto",
    dtype: DType = "float32",
    quiet: Quiet = False,
) -> None:
    """Greedy completions, with or without an edit of the residual stream."""
    import demur
    from demur.progress import bars

    edit = _edit(direction, ablate, add, unit, layer, sites)
    found = demur.load_instructions(instructions, split=False)
    texts = found.take("test")[:limit]
    checkpoint = demur.load_checkpoint(model, adapter=adapter, dtype=dtype, device=device)
    with bars(quiet)("completions", len(texts)) as progress:
        rows = demur.generate(
            checkpoint,
            texts,
            demur.prompt_format(prompt, checkpoint),
            [edit],
            max_new_tokens=max_new_tokens,
            progress=progress,
        )[0]
    lines = [
        {
            "instruction": row.instruction,
            "completion": row.text,
            "prompt": row.prompt,
            "token_ids": row.token_ids,
            "target": model if adapter is None else f"{model} + {adapter}",
            "intervention": "none" if edit is None else edit.kind,
        }
        for row in rows
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    typer.echo(str(out))


def _edit(path: Path | None, ablate: bool, add: float | None, unit: str, layer: int | None, sites: str | None) -> Any:
    if path is None:
        if ablate or add is not None:
            raise InputError("--ablate and --add need a direction; give one with --direction FILE")
        return None
    if ablate == (add is not None):
        raise InputError("a direction needs either --ablate or --add NUMBER")
    import demur

    direction = demur.load_direction(path)
    layers = None if layer is None else [layer]
    names: Any = None if sites is None else sites.split(",")
    if add is None:
        return demur.ablate(direction, layers=layers, sites=names)
    return demur.add(direction, add, unit=unit, layers=layers, sites=names)


@command
def judge(
    completions: Annotated[Path, typer.Argument(help="a .jsonl file with instruction and completion")],
    judge: Annotated[str, typer.Option("--judge", "-j", help="prefix or substring")] = "prefix",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="verdicts.jsonl")] = None,
    quiet: Quiet = False,
) -> None:
    """Judge stored completions: prints n, refusals, rate and interval, and writes one verdict a line with --out."""
    from demur.instructions import read_rows
    from demur.judges import judge as decide
    from demur.statistics import wilson

    rows = read_rows(completions)
    missing = next((n for n, row in enumerate(rows, 1) if not isinstance(row.get("completion"), str)), None)
    if missing is not None:
        raise InputError(f"row {missing} of {str(completions)!r} has no text under 'completion'")
    verdicts = decide([row["completion"] for row in rows], judge)
    if out is not None:
        lines = [{**row, "judge": v.judge, "refusal": v.refusal, "label": v.label, "evidence": v.evidence}
                 for row, v in zip(rows, verdicts, strict=True)]  # fmt: skip
        out.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    count = sum(verdict.refusal for verdict in verdicts)
    low, high = wilson(count, len(verdicts))
    typer.echo(
        f"{judge}: {count} of {len(verdicts)} refuse, {100 * count / len(verdicts):.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
    )


@command
def directions(
    files: Annotated[list[Path], typer.Argument(help="direction files: .safetensors, or .pt with one tensor")],
    quiet: Quiet = False,
) -> None:
    """Norms and pairwise cosines of directions. Example: demur directions base.safetensors chat.safetensors"""
    from demur.directions import cosines, load_direction

    loaded = [load_direction(path) for path in files]
    for number, direction in enumerate(loaded, 1):
        place = f"layer {direction.layer} {direction.site}" if direction.provenance.get("file") is None else "layer unknown"
        typer.echo(f"{number}  {direction.name}  width {direction.vector.shape[0]}  norm {direction.raw_norm:.4g}  {place}")
    matrix = cosines(loaded)
    for number, row in enumerate(matrix.tolist(), 1):
        typer.echo(f"{number}  " + "  ".join(f"{value:7.4f}" for value in row))


@command
def doctor(
    model: Model,
    adapter: Adapter = None,
    prompt: Format = "native",
    device: Device = "auto",
    dtype: DType = "float32",
    quiet: Quiet = False,
) -> None:
    """Show how demur reads a checkpoint: layout, proof of the sites, the prompt as tokens, BOS count, dtype, device, memory."""
    import demur
    from demur.doctor import diagnosis

    for line in diagnosis(demur.load_checkpoint(model, adapter=adapter, dtype=dtype, device=device), prompt):
        typer.echo(line)


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

    content = exported(open_run(run_dir), format)
    if out is None and isinstance(content, bytes):
        raise InputError("a Parquet file is not text; say where to write it with --out FILE")
    if out is None:
        typer.echo(content, nl=False)
    else:
        out.write_bytes(content if isinstance(content, bytes) else content.encode())
        typer.echo(str(out))


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
