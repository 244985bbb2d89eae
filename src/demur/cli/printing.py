"""The one door to the terminal: everything that the command line prints goes through the streams of this file.

Names, completions and messages come from studies, models and run folders of others. A control character in one of them could move
the cursor, change the window's title or show a text in another order, so control characters are written out. Colours and bars of
rich are added behind this door.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO

import typer

from demur.core.printable import printable

if TYPE_CHECKING:
    from rich.console import Console


class PrintableStream:
    """A text stream to which no control character is written.

    If the program that reads it, such as `head`, has gone, the work is finished in silence. That is no failure.

    Attributes:
        unfiltered: the stream itself.
    """

    # Any: whatever else a text stream can do is done by the stream itself.
    def __init__(self, stream: Any) -> None:
        self.unfiltered = stream

    def write(self, text: str) -> int:
        """Write a text with its control characters written out, and characters that the stream's encoding lacks too."""
        return self.write_exactly(printable(text))

    def write_exactly(self, text: str) -> int:
        """Write a text unchanged, apart from characters that the stream's encoding lacks."""
        try:
            self.unfiltered.write(text)
        except UnicodeEncodeError:
            encoding = self.unfiltered.encoding or "ascii"
            self.unfiltered.write(text.encode(encoding, "backslashreplace").decode(encoding))
        except BrokenPipeError:
            _into_nothing(self.unfiltered)
        return len(text)

    def flush(self) -> None:
        """Write what is buffered."""
        try:
            self.unfiltered.flush()
        except BrokenPipeError:
            _into_nothing(self.unfiltered)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":
            raise AttributeError("bytes would pass unchecked")
        return getattr(self.unfiltered, name)


@contextmanager
def guarded_streams() -> Iterator[None]:
    """Inside the block, standard output and standard error take no control characters."""
    before = sys.stdout, sys.stderr
    guards: list[Any] = [PrintableStream(stream) for stream in before]
    sys.stdout, sys.stderr = guards
    try:
        yield
    finally:
        # Here, and not at the interpreter's end, where a reader that has gone is an error.
        for guard in guards:
            guard.flush()
        sys.stdout, sys.stderr = before


def console(*, errors: bool = False, width: int | None = None) -> "Console":
    """A console of rich for standard output, or for standard error. Its texts are cleaned, its own colours and bars are not."""
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class PrintableConsole(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else Segment(printable(segment.text), segment.style)

        def on_broken_pipe(self) -> None:
            self.quiet = True
            _into_nothing(self.file)

    stream = sys.stderr if errors else sys.stdout
    file: TextIO = getattr(stream, "unfiltered", stream)
    return PrintableConsole(file=file, width=width)


def output_width(*, errors: bool = False) -> int:
    """The columns of standard output, or of standard error: those of the terminal within limits, always the same in a pipe."""
    from shutil import get_terminal_size

    from demur.core.fitted_table import LEAST, MOST, USUAL

    shown = (sys.stderr if errors else sys.stdout).isatty()
    return min(MOST, max(LEAST, get_terminal_size().columns)) if shown else USUAL


def note(text: str) -> None:
    """One line on standard error."""
    typer.echo(f"note: {text}", err=True)


def exact(content: str) -> None:
    """The content of a file on standard output, unchanged; in a terminal, without control characters."""
    stream = sys.stdout
    if isinstance(stream, PrintableStream) and not stream.isatty():
        stream.write_exactly(content)
    else:
        stream.write(content)


# Any: streams of tests have no number.
def _into_nothing(stream: Any) -> None:
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
