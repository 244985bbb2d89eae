"""The application, the options that commands share, and how a refusal becomes one sentence and an exit status.

Exit status: 0 done, 1 the work failed, 2 bad input, 130 interrupted.
"""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, NoReturn, ParamSpec

import typer

from demur.errors import DemurError, WorkError

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
