"""The application, the options that commands share, and how a refusal becomes one sentence and an exit status.

Exit status: 0 done, 1 the work failed, 2 bad input, 130 interrupted.
"""

import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, NoReturn, ParamSpec

import typer
from typer.core import TyperGroup

from demur.errors import DemurError, WorkError


class _OneSentence(TyperGroup):
    """What the parser refuses, an unknown option or a missing argument, is one sentence too."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: ARG002
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Ends the process with the exit status, as a command line does."""
        try:
            status = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        except typer.Abort:
            typer.echo("demur: interrupted", err=True)
            sys.exit(130)
        except Exception as error:
            # typer carries its own copy of click, whose refusals share no public class.
            if not hasattr(error, "format_message"):
                raise
            typer.echo(f"demur: {_flat(error.format_message())}; see demur --help", err=True)
            sys.exit(2)
        sys.exit(status if isinstance(status, int) else 0)


app = typer.Typer(
    cls=_OneSentence,
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
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, or spread over all GPUs, memory and disk")]
DType = Annotated[str, typer.Option("--dtype", help="float32, bfloat16, float16")]
Quantise = Annotated[str | None, typer.Option("--quantise", "--quantize", help="8bit or 4bit weights, by bitsandbytes")]
StudyName = Annotated[str, typer.Argument(help="a preset's name or a TOML file", metavar="STUDY")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE, for example direction.pairs=64; may be repeated")]
RunFolder = Annotated[Path, typer.Argument(help="a run folder", metavar="RUN_DIR")]


def _fail(status: int, message: str) -> NoReturn:
    typer.echo(f"demur: {_flat(message)}", err=True)
    raise typer.Exit(status)


def _flat(message: str) -> str:
    """On one line, whatever names and libraries put into it."""
    return " ".join(message.split()).rstrip(".")


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
