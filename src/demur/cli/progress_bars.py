"""Progress on standard error: live bars in a terminal; elsewhere one line a minute, and one at the end of each phase."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

import typer

from demur.cli.printing import console
from demur.core.progress import Phases, Progress, no_phases

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars

EVERY_SECONDS = 60.0
"""How often a long phase prints a line if no bar can be shown."""


def bars(quiet: bool) -> Phases:
    """Phases that show their progress: live bars in a terminal, lines of text elsewhere, and nothing if `quiet`."""
    if quiet:
        return no_phases
    shown = console(errors=True)
    live = shown.is_terminal and not shown.is_dumb_terminal
    return LiveBars(shown).phase if live else partial(_lines, partial(shown.print, markup=False, highlight=False, soft_wrap=True))


class LiveBars:
    """The bars of all phases that are open. They share one display, because a terminal can show only one at a time."""

    def __init__(self, console: "Console") -> None:
        self._console = console
        self._shown: Bars | None = None
        self._open = 0

    @contextmanager
    def phase(self, name: str, total: int | None) -> Iterator[Progress]:
        """Show the bar of one phase. If others are still open at its end, its last line is printed above their bars."""
        if self._shown is None:
            self._shown = _display(self._console)
            self._shown.start()
        shown, self._open = self._shown, self._open + 1
        task = shown.add_task(name, total=total)
        try:
            yield lambda done: shown.update(task, advance=done)
            shown.update(task, total=(ended := next(one for one in shown.tasks if one.id == task)).completed)
            if self._open > 1:
                line = f"{name}: {pace(int(ended.completed), ended.total, ended.elapsed or 0.0, done=True)}"
                shown.console.print(line, markup=False, highlight=False, soft_wrap=True)
                shown.remove_task(task)
        finally:
            self._open -= 1
            if not self._open:
                shown.stop()
                self._shown = None


def _display(console: "Console") -> "Bars":
    from rich.progress import BarColumn, ProgressColumn, Task, TextColumn
    from rich.progress import Progress as Bars
    from rich.table import Column
    from rich.text import Text

    class Pace(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(pace(int(task.completed), task.total, task.elapsed or 0.0, done=task.finished))

    # With these widths, the longest line fits 80 columns.
    columns = (
        TextColumn("{task.description}", markup=False, table_column=Column(width=28, no_wrap=True, overflow="ellipsis")),
        BarColumn(bar_width=8),
        Pace(),
    )
    return Bars(*columns, console=console)


@contextmanager
def _lines(
    show: Callable[[str], object], name: str, total: int | None, clock: Callable[[], float] = monotonic
) -> Iterator[Progress]:
    begun = last = clock()
    count = 0

    def progress(done: int) -> None:
        nonlocal count, last
        count += done
        if clock() - last >= EVERY_SECONDS and count != total:
            last = clock()
            show(f"{name}: {pace(count, total, last - begun, done=False)}")

    yield progress
    show(f"{name}: {pace(count, count, clock() - begun, done=True)}")


def pace(count: int, total: float | int | None, seconds: float | int, *, done: bool) -> str:
    """Rows done, speed and time in words: `400 of 1400, 19 rows/s, 0:52 left`, or `1400, 19 rows/s, 1:13` at the end.

    The time left assumes the mean speed so far. A phase of one step has no speed.
    """
    parts = []
    if total is None or total > 1:
        parts.append(f"{count}" if done or total is None else f"{count} of {total:g}")
        if count and seconds > 0:
            parts.append(f"{count / seconds:.3g} rows/s" if count / seconds < 1000 else f"{count / seconds:.0f} rows/s")
    if done:
        parts.append(clock_time(seconds))
    elif total is not None and count:
        parts.append(f"{clock_time((total - count) * seconds / count)} left")
    else:
        parts.append(f"{clock_time(seconds)} so far")
    return ", ".join(parts)


def clock_time(seconds: float | int) -> str:
    """Minutes and seconds as 1:05, with hours as 2:01:05."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextmanager
def hub_lines(*, quiet: bool) -> Iterator[None]:
    """Inside the block, what `demur.hub` logs goes to standard error; nowhere if `quiet`."""
    logger = logging.getLogger("demur.hub")
    handler: logging.Handler = logging.NullHandler() if quiet else _Lines()
    level, upwards = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = upwards


class _Lines(logging.Handler):
    """Writes each record as one line."""

    def emit(self, record: logging.LogRecord) -> None:
        typer.echo(record.getMessage(), err=True)
