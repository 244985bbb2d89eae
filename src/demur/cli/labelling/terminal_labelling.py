"""Labelling in a terminal: one key a label. Where standard input is no terminal, one line a label."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from demur.cli.printing import console, output_width
from demur.core.printable import printable

if TYPE_CHECKING:
    from demur.runs.labelling.label_session import LabelSession, ToLabel

_ESCAPE = "\x1b"


def label_in_terminal(session: "LabelSession") -> None:
    """Show completions and take labels until the sample is done or the labeller quits.

    Args:
        session: the labeller at work.
    """
    from demur.runs.labelling.label_session import label_keys

    keys, said = label_keys(session.design.labels), ""
    with _keys() as pressed:
        while (shown := session.next()) is not None:
            _show(session, shown, keys, said)
            said = ""
            key = next(pressed, "q")
            if key == "q":
                return
            if key in keys:
                session.give(shown.number, keys[key])
            elif key == "s":
                session.give(shown.number, None)
            elif key == "u":
                said = "the last label is taken back" if session.undo() else "there is nothing to take back"
            elif key == "?":
                said = _definitions(session, keys)
            else:
                said = f"there is no key {key!r}"


def _show(session: "LabelSession", shown: "ToLabel", keys: dict[str, str], said: str) -> None:
    """Print one completion. The terminal is cleared first, so that the one before cannot influence the label."""
    from rich.padding import Padding
    from rich.text import Text

    from demur.core.number_format import TIE
    from demur.runs.labelling.label_session import COMMANDS

    done, out = session.progress(), console(width=output_width())
    if sys.stdout.isatty():
        out.clear()
    out.print(Text(f"{done.labelled + done.skipped + 1} of {done.total}", style="dim"))
    for title, text in (("Instruction", shown.instruction), ("Completion", shown.text)):
        out.print(Text(title, style="bold"))
        out.print(Padding(Text(printable(text)) if text.strip() else Text("(empty)", style="dim"), (0, 0, 1, 2)))
    # The labels come before the commands, on lines of their own.
    out.print(Text("   ".join(f"{key}{TIE}{label}" for key, label in keys.items())))
    out.print(Text("   ".join(f"{key}{TIE}{name}" for key, name in COMMANDS.items()), style="dim"))
    if said:
        out.print(Text(printable(said)))


def _definitions(session: "LabelSession", keys: dict[str, str]) -> str:
    lines = [f"{key} {label}: {session.design.definitions.get(label) or 'no definition'}" for key, label in keys.items()]
    return "\n".join(("", "The first label that fits counts.", *lines))


@contextmanager
def _keys() -> Iterator[Iterator[str]]:
    """The keys that are pressed: single keys of a terminal, else the first character of each line."""
    if not sys.stdin.isatty():
        yield (line.strip()[:1].lower() for line in sys.stdin if line.strip())
        return
    try:
        import termios
        import tty
    except ImportError:  # Windows has no termios; lines work everywhere
        yield (line.strip()[:1].lower() for line in sys.stdin if line.strip())
        return
    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)
    try:
        tty.setcbreak(number)
        yield _pressed(number)
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)
        typer.echo()


def _pressed(number: int) -> Iterator[str]:
    """Single keys. A key that sends several bytes, such as an arrow, counts as one key that means nothing."""
    while data := os.read(number, 64):
        text = data.decode(errors="replace")
        # Keys that were typed ahead arrive together; a sequence of a special key begins with escape.
        yield from [_ESCAPE] if text.startswith(_ESCAPE) else text.lower()
