"""Progress of long steps: a callable that is told how much was just done.

Library functions take one and know nothing of terminals; the command line passes bars, everything else passes `silent`.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Progress = Callable[[int], None]
"""Called with the number of units just finished."""

Phases = Callable[[str, int | None], AbstractContextManager[Progress]]
"""Opens a phase: `with phases("generating", 1200) as progress: ...`; None where its size shows on the way."""


def silent(_done: int) -> None:
    """Shows nothing."""


@contextmanager
def no_phases(_name: str, _total: int | None) -> Iterator[Progress]:
    """Phases that show nothing."""
    yield silent


def bars(quiet: bool) -> Phases:
    """Bars on standard error with time left and speed; nothing where `quiet`, and plain lines where it is not a terminal."""
    if quiet:
        return no_phases

    @contextmanager
    def shown(name: str, total: int | None) -> Iterator[Progress]:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bars

        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TaskProgressColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Bars(*columns, console=console, transient=False) as bar:
            task = bar.add_task(name, total=total)
            yield lambda done: bar.update(task, advance=done)

    return shown
