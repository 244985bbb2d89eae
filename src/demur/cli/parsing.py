"""The parser: its error messages are one sentence with the nearest known name, and its help lists commands by section."""

import re
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import partial
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup

from demur.cli.printing import guarded_streams
from demur.core.errors import nearest


def flat(message: str) -> str:
    """A message on one line. Names and messages of libraries in it may contain line ends."""
    return " ".join(message.split()).rstrip(".")


def _if_given(convert: Callable[[Any, Any], Any], ctx: Any, value: Any) -> Any:
    return None if value is None else convert(ctx, value)


def _with_names(text: str) -> str:
    if not _NAMES.search(text):
        return text
    from demur.core.registry import registry  # reads what is installed

    return _NAMES.sub(lambda found: ", ".join(registry(found[1]).names()), text)


_NAMES = re.compile(r"\{(\w+) names\}")
"""The places of a help text where the registered parts of a kind are listed."""


class PlainCommand(TyperCommand):
    """A command whose help shows its arguments by name only: STUDY, not {STUDY} and not STUDY <str>."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The parts of the usage line."""
        return [piece.translate({ord(brace): None for brace in "{}"}) for piece in super().collect_usage_pieces(ctx)]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Writes the help, with the names of registered parts in place of `{judge names}` and the like."""
        for each in self.params:
            if getattr(each, "help", None):
                vars(each)["help"] = _with_names(vars(each)["help"])
        super().format_help(ctx, formatter)

    def get_params(self, ctx: Any) -> Any:
        """Arguments without the name of their Python type."""
        found = super().get_params(ctx)
        for each in found:
            if isinstance(each, TyperArgument):
                vars(each)["display_type_rich"] = lambda ctx: None  # noqa: ARG005
        return found


class OneSentence(TyperGroup):
    """The group of all commands: error messages in one sentence, and sections in the help."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: ARG002
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command and end the process with its exit status."""
        with guarded_streams():
            try:
                status = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
            except typer.Abort:
                typer.echo("demur: interrupted", err=True)
                sys.exit(130)
            except Exception as error:
                # typer has its own copy of click. The parser's errors have no public base class there, but all have this method.
                if not hasattr(error, "format_message"):
                    raise
                typer.echo(f"demur: {flat(self._refusal(error))}", err=True)
                sys.exit(2)
        sys.exit(status if isinstance(status, int) else 0)

    def get_params(self, ctx: Any) -> Any:
        """Parameters that skip the conversion of options that were not given, because typer would import pydantic for it."""
        found = super().get_params(ctx)
        for each in found:
            if "process_value" not in vars(each):
                vars(each)["process_value"] = partial(_if_given, each.process_value)
        return found

    def _refusal(self, error: Any) -> str:
        """The parser's error message in one sentence; for an unknown name, with the nearest known one."""
        context = getattr(error, "ctx", None)
        path = str(context.command_path) if context is not None else "demur"
        name = type(error).__name__
        if name == "NoSuchOption" and context is not None:
            options = [each for one in context.command.get_params(context) for each in one.opts if each.startswith("--")]
            close = get_close_matches(error.option_name.lstrip("-"), [each[2:] for each in options], n=1)
            hint = f"; did you mean --{close[0]}?" if close else ""
            if error.option_name in ("--base", "--chat"):
                hint = "; to compare two checkpoints, give demur pair BASE CHAT"
            return f"{path} has no option {error.option_name}{hint} ({path} --help lists them)"
        return f"{flat(error.format_message())} ({path} --help)"

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Refuses an unknown command with the nearest one."""
        if args and not args[0].startswith("-") and args[0] not in self.commands and not ctx.resilient_parsing:
            if len(args) > 1 and ("/" in args[0] or args[0].startswith("demo:")):
                ctx.fail(f"there is no command {args[0]!r}; to compare two checkpoints, give demur pair {args[0]} {args[1]}")
            ctx.fail(f"there is no command {args[0]!r}; {nearest(args[0], self.commands)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Lists the commands by section."""
        sections: dict[str, list[tuple[str, str]]] = {}
        width = max(map(len, self.commands))
        for name in self.list_commands(ctx):
            each = self.commands[name]
            text = each.get_short_help_str(formatter.width - 6 - width)
            # The same width in every section, so that the columns align.
            sections.setdefault(str(getattr(each, "rich_help_panel", "")), []).append((f"{name:{width}}", text))
        for section, rows in sections.items():
            with formatter.section(section):
                formatter.write_dl(rows)
