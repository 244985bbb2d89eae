"""The application, the options that commands share, and how an error becomes one sentence and an exit status.

Exit status: 0 done, 1 the work failed, 2 bad input, 130 interrupted. Every command is registered with its section of the help
and with examples, which its help shows unchanged.
"""

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from functools import wraps
from pathlib import Path
from typing import Annotated, NoReturn, ParamSpec

import typer

from demur.cli import shell_completion
from demur.cli.parsing import OneSentence, PlainCommand, flat
from demur.cli.progress_bars import hub_lines
from demur.core.errors import DemurError, WorkError
from demur.core.network import offline
from demur.study.machines.data_sheets import DATA_SHEETS

app = typer.Typer(
    cls=OneSentence,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Measure how often language-model checkpoints refuse, find the direction that carries it, and move it between models.",
    epilog="demur COMMAND --help shows examples. Begin with: demur run demo",
)

Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        help="hub id owner/name[@revision], a folder, or a .gguf file",
        autocompletion=shell_completion.models,
    ),
]
Adapter = Annotated[
    str | None,
    typer.Option(
        "--adapter", "-a", metavar="ADAPTER", help="PEFT adapter: a folder or a hub id", autocompletion=shell_completion.adapters
    ),
]
Format = Annotated[
    str,
    typer.Option(
        "--prompt",
        "-p",
        metavar="FORMAT",
        help="a prompt format, native, or a text with {instruction}",
        autocompletion=shell_completion.prompts,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="show no progress on standard error")]
Offline = Annotated[bool, typer.Option("--offline", help="ask the model hub nothing; use only files on this machine")]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="DEVICE",
        help="auto, cpu, cuda, cuda:1, or spread (over all GPUs, memory and disk)",
        autocompletion=shell_completion.devices,
    ),
]
PlannedDevice = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="DEVICE",
        help=f"auto, cpu, cuda, cuda:1 or spread; or a device that is not here: {', '.join(DATA_SHEETS)}",
        autocompletion=shell_completion.planned_devices,
    ),
]
DType = Annotated[
    str, typer.Option("--dtype", metavar="DTYPE", help="float32, bfloat16, float16", autocompletion=shell_completion.dtypes)
]
OtherDType = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        metavar="DTYPE",
        help="precision of the weights, instead of the study's",
        autocompletion=shell_completion.dtypes,
    ),
]
ControlTokens = Annotated[
    str,
    typer.Option(
        "--control-tokens",
        metavar="text|tokens",
        help="whether a control token that an instruction holds stays text, or becomes the token as in published code",
    ),
]
SystemSentence = Annotated[
    str | None, typer.Option("--system", metavar="TEXT", help="a system sentence, in the place that the prompt format has for it")
]
Quantise = Annotated[
    str | None,
    typer.Option(
        "--quantise",
        "--quantize",
        metavar="HOW",
        help="8bit or 4bit: quantise the weights with bitsandbytes",
        autocompletion=shell_completion.quantised,
    ),
]
StudyName = Annotated[
    str, typer.Argument(help="a preset's name or a TOML file", metavar="STUDY", autocompletion=shell_completion.studies)
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="change a setting, for example direction.pairs=64; may be repeated"),
]
RunFolder = Annotated[Path, typer.Argument(help="a run folder", metavar="RUN_DIR", autocompletion=shell_completion.runs)]
RunA = Annotated[Path, typer.Argument(help="a run folder", metavar="RUN_A", autocompletion=shell_completion.runs)]
RunB = Annotated[Path, typer.Argument(help="another run folder", metavar="RUN_B", autocompletion=shell_completion.runs)]
MoreRuns = Annotated[
    list[Path] | None, typer.Argument(help="further run folders", metavar="RUN_C", autocompletion=shell_completion.runs)
]
DirectionFile = Annotated[
    Path, typer.Option("--direction", "-d", metavar="FILE", help="a direction file", autocompletion=shell_completion.directions)
]

MaxCost = Annotated[
    float | None,
    typer.Option(
        "--max-cost",
        metavar="COST",
        help="the most that the requests of each judge that asks a server may cost, in the unit of the prices in its file",
    ),
]

FreeDisk = Annotated[
    bool, typer.Option("--free-disk", help="delete weights that this run fetches from a hub when no job needs them any more")
]
ExecutorName = Annotated[
    str | None,
    typer.Option(
        "--executor",
        metavar="NAME",
        help="where the jobs run: local, processes, or ray; by default local, or processes if there are several GPUs",
        autocompletion=shell_completion.executors,
    ),
]
Workers = Annotated[
    int | None, typer.Option("--workers", metavar="N", help="number of processes or Ray actors; one for each GPU unless given")
]
ShardName = Annotated[
    str | None,
    typer.Option("--shard", metavar="I/N", help="carry out only part I of N, in a folder of its own; demur merge joins them"),
]

STUDIES, CHECKPOINTS, FILES = "Studies and their runs", "One checkpoint", "Files"
"""Sections of the list of commands."""

P = ParamSpec("P")


def command(section: str, *examples: str, resumes: bool = False) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Register a command whose errors become one sentence and an exit status.

    Args:
        section: the section of the list of commands.
        examples: command lines that its help shows at the end.
        resumes: whether the command keeps what it has done; the same command, without `--fresh`, then resumes where it stopped.
    """
    # \b keeps typer from wrapping the lines that follow.
    shown = "\b\n" + "\n".join(("Example:" if len(examples) == 1 else "Examples:", *(f"  {line}" for line in examples)))

    def register(function: Callable[P, None]) -> Callable[P, None]:
        @wraps(function)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
            asks_nothing = offline() if kwargs.pop("offline", False) else nullcontext()
            try:
                with asks_nothing, hub_lines(quiet=bool(kwargs.get("quiet"))):
                    function(*args, **kwargs)
            except WorkError as error:
                _fail(1, str(error))
            except DemurError as error:
                _fail(2, str(error))
            except KeyboardInterrupt:
                again = "the same command without --fresh" if kwargs.get("fresh") else "the same command"
                _fail(130, f"interrupted; {again} resumes where it stopped" if resumes else "interrupted")

        _add_offline(guarded)
        return app.command(cls=PlainCommand, epilog=shown, rich_help_panel=section)(guarded)

    return register


def _add_offline(function: Callable[..., None]) -> None:
    """Give a command the option `--offline`, which is the same for all commands, so that none has to name it."""
    option = inspect.Parameter("offline", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Offline)
    said = inspect.signature(function)
    vars(function)["__signature__"] = said.replace(parameters=[*said.parameters.values(), option])
    function.__annotations__ = {**function.__annotations__, "offline": Offline}


def _fail(status: int, message: str) -> NoReturn:
    typer.echo(f"demur: {flat(message)}", err=True)
    raise typer.Exit(status)
